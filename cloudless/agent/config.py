"""What the agent does not ask a person for: its named limits and periods, and what it says of its machine.

What a person sets is `cloudless.settings.AgentSettings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cloudless
from cloudless.adapters.host.hardware import detect_capacity, detect_labels
from cloudless.core.discovery.addresses import reachable_at
from cloudless.core.model import NodeInfo, Resources
from cloudless.settings import DETECT, AgentSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """Bounds of the agent's loops, waits and queues; seconds unless the name says otherwise.

    Sessions: `connect_timeout_s` runs from dialling to the Welcome. If that machine is found to take connections
    (asked from `knock_after_s` on) it doubles with each failure of that address up to `connect_timeout_max_s`; while
    there is a primary, as if `second_failures` had been before. `silent_periods_max` heartbeat periods without a word
    make a coordinator count as broken, `silent_periods_alone_max` the primary if there is no other. Dialling an address
    again waits a random part of `retry_first_s` doubled per failure, up to `retry_max_s`, up to `retry_late_max_s` if
    that coordinator was too slow to answer, and up to `retry_second_max_s` while there is a primary. Where the
    heartbeat period told is longer than `heartbeat_period_default_s`, as in large clusters, the second session is
    dialled anew after a random part of `second_spread` times what it is longer, and its first pause is as many times
    longer as the period is. The first dial waits `seeds_first_wait_s` at most for names of seeds to be looked up.
    Reports: at most one message per `report_gap_s`, `reports_per_message_max` tasks each (at a few KB a task far less
    than a coordinator reads at once); not acknowledged within `report_resend_s` they are sent again.
    Probes: at most `probe_starts_max` commands of each executor are being started at once; running ones do not count.
    """

    connect_timeout_s: float = 1.5
    connect_timeout_max_s: float = 24.0
    knock_after_s: float = 0.5
    heartbeat_period_default_s: float = 1.0
    heartbeat_period_max_s: float = 60.0
    silent_periods_max: int = 3
    silent_periods_alone_max: int = 10
    retry_first_s: float = 0.2
    retry_max_s: float = 2.0
    retry_late_max_s: float = 15.0
    retry_second_max_s: float = 15.0
    second_spread: float = 2.0
    second_failures: int = 2
    shed_pause_s: float = 2.0
    refused_pause_s: float = 1.0
    foreign_pause_s: float = 30.0
    seeds_first_wait_s: float = 1.0
    addresses_kept_max: int = 256
    report_gap_s: float = 0.05
    report_resend_s: float = 2.0
    reports_per_message_max: int = 200
    message_bytes_max: int = 16 * 1024 * 1024
    starts_max: int = 4
    probe_starts_max: int = 8
    journal_threads_max: int = 4
    journal_retry_s: float = 5.0
    room_retry_s: float = 2.0
    wait_retry_s: float = 1.0
    remove_retry_s: float = 5.0
    log_streams_max: int = 64
    execs_max: int = 64
    exit_first_wait_s: float = 1.0
    last_reports_wait_s: float = 1.5
    exit_margin_s: float = 15.0
    port_lowest: int = 20000
    port_highest: int = 32000
    port_tries_max: int = 200


def build_node_info(
    settings: AgentSettings,
    executors: tuple[str, ...],
    agent_id: str,
    abilities: Mapping[str, str],
    incarnation: int = 0,
) -> NodeInfo:
    """Return what the agent says of its machine in every session. `abilities`: each with why it is lacking, or ""."""
    address = settings.advertise_address or settings.listen_address
    return NodeInfo(
        id=settings.node_id,
        name=settings.node_name or settings.node_id,
        type=settings.node_type,
        region=settings.region,
        zone=settings.zone,
        address=address,
        metrics_address=reachable_at(settings.metrics_address, address) if settings.metrics_address else "",
        capacity=_complete(settings),
        labels={**detect_labels(), **settings.labels},
        executors=executors,
        version=cloudless.__version__,
        boot_id=read_boot_id(),
        agent_id=agent_id,
        incarnation=incarnation,
        capabilities=(*sorted(name for name, why_not in abilities.items() if not why_not), *settings.capabilities),
        unable={name: why_not for name, why_not in sorted(abilities.items()) if why_not},
    )


def _complete(settings: AgentSettings) -> Resources:
    """Return the capacity, detected where the settings do not say."""
    given = asdict(settings.capacity)
    if DETECT not in given.values():
        return settings.capacity
    found = asdict(detect_capacity(settings.data_dir))
    return Resources(**{name: found[name] if amount == DETECT else amount for name, amount in given.items()})


def read_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
