"""Read how a change of the tasks is carried out."""

from __future__ import annotations

import re

from cloudless.core.fields import Fields
from cloudless.core.model import Rollout, RolloutStrategy

REPLICAS_MAX = 10_000
WAIT_MAX_S = 7 * 86_400.0
_PERCENT = re.compile(r"([0-9]{1,3}) ?%")


def read_rollout(fields: Fields) -> Rollout:
    """Return the rollout of a mapping; an empty one is the default."""
    base = Rollout()
    fields.accept(minReadySeconds="minReady", progressDeadlineSeconds="progressDeadline")
    surge, surge_percent = _read_share(fields, "maxSurge", base.max_surge)
    unavailable, unavailable_percent = _read_share(fields, "maxUnavailable", base.max_unavailable)
    available, available_percent = _read_share(fields, "minAvailable", -1)
    made = Rollout(
        strategy=fields.choice("strategy", base.strategy),
        max_surge=surge,
        max_unavailable=unavailable,
        max_surge_percent=surge_percent,
        max_unavailable_percent=unavailable_percent,
        min_available=None if available < 0 or available_percent else available,
        min_available_percent=available_percent,
        batch_size=fields.whole("batchSize", base.batch_size, least=0, most=REPLICAS_MAX),
        pause_s=fields.duration("pauseDuration", base.pause_s, most_s=WAIT_MAX_S),
        min_ready_s=fields.duration("minReady", base.min_ready_s, most_s=WAIT_MAX_S),
        progress_deadline_s=fields.duration("progressDeadline", base.progress_deadline_s, most_s=WAIT_MAX_S),
        auto_rollback=fields.flag("autoRollback", base.auto_rollback),
        canary=fields.whole("canary", base.canary, least=0, most=REPLICAS_MAX),
        auto_promote=fields.flag("autoPromote", base.auto_promote),
    )
    fields.finish()
    _check_together(made, fields)
    return made


def _check_together(made: Rollout, fields: Fields) -> None:
    add, strategy = fields.problems.add, made.strategy
    floor = made.min_available is not None or made.min_available_percent > 0
    missing = made.max_unavailable > 0 or made.max_unavailable_percent > 0
    surge = made.max_surge > 0 or made.max_surge_percent > 0
    if floor and missing:
        add(fields.at("minAvailable"), "says the same as maxUnavailable in another way: leave one of them out")
    if strategy in (RolloutStrategy.ROLLING_UPDATE, RolloutStrategy.CANARY) and not (surge or missing or floor):
        add(fields.path, "maxSurge and maxUnavailable must not both be 0: nothing could be replaced")
    if strategy is RolloutStrategy.CANARY and not made.canary:
        add(fields.at("canary"), "is required by the strategy CANARY: how many new tasks are tried first")
    if strategy is not RolloutStrategy.CANARY and made.canary:
        add(fields.at("canary"), "goes with the strategy CANARY only")
    if 0 < made.progress_deadline_s <= made.min_ready_s:
        add(fields.at("progressDeadline"), "must be longer than minReady, or no rollout could ever succeed")
    if made.auto_promote and strategy not in (RolloutStrategy.CANARY, RolloutStrategy.BLUE_GREEN):
        add(fields.at("autoPromote"), "goes with the strategies CANARY and BLUE_GREEN only")


def _read_share(fields: Fields, name: str, default: int) -> tuple[int, int]:
    """Return (number, 0) or, for a percentage above 0, (0, percent)."""

    def parse(value: object) -> tuple[int, int]:
        if isinstance(value, str):
            match = _PERCENT.fullmatch(value)
            if match is None or int(match[1]) > 100:
                raise ValueError('must be a whole number, or a percentage from "0%" to "100%"')
            return 0, int(match[1])
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError('must be a whole number, or a percentage like "25%"')
        if not 0 <= value <= REPLICAS_MAX:
            raise ValueError(f"must be 0 to {REPLICAS_MAX}")
        return value, 0

    return fields.parsed(name, (default, 0), parse)
