"""Read as whom and within which bounds a task runs."""

from __future__ import annotations

from cloudless.core.fields import Fields, Problems, quote, read_text
from cloudless.core.model import CAPABILITIES, RLIMIT_NAMES, RLIMIT_UNLIMITED, Rlimit, SecurityContext

ID_MAX = 2**31 - 1
AMOUNT_MAX = 10**18 - 1


def read_security_context(fields: Fields) -> SecurityContext:
    """Return the security context of a mapping; an empty one is the default."""
    fields.accept(readOnlyRootFilesystem="readOnlyRoot")
    capabilities = fields.child("capabilities")
    made = SecurityContext(
        run_as_user=_read_id(fields, "runAsUser"),
        run_as_group=_read_id(fields, "runAsGroup"),
        read_only_root=fields.flag("readOnlyRoot", False),
        add_capabilities=_read_capabilities(capabilities, "add"),
        drop_capabilities=_read_capabilities(capabilities, "drop"),
        private_tmp=fields.flag("privateTmp", False),
        rlimits=_read_rlimits(fields.child("rlimits")),
    )
    capabilities.finish()
    fields.finish()
    for name in made.add_capabilities:
        if name in made.drop_capabilities:
            fields.problems.add(fields.at("capabilities"), f"{name} is both added and dropped")
    return made


def _read_id(fields: Fields, name: str) -> int | None:
    number = fields.whole(name, -1, least=0, most=ID_MAX)
    return None if number < 0 else number


def _read_capabilities(fields: Fields, name: str) -> tuple[str, ...]:
    found: list[str] = []
    for path, item in fields.items(name, count_max=len(CAPABILITIES)):
        written = read_text(item, path, fields.problems, length_max=64)
        capability = written.upper().removeprefix("CAP_")
        if written and capability not in CAPABILITIES:
            fields.problems.add_unknown(path, written.upper(), CAPABILITIES, kind="capability")
        elif capability in found:
            fields.problems.add(path, f"{capability} is named twice")
        else:
            found.append(capability)
    return tuple(found)


def _read_rlimits(fields: Fields) -> tuple[Rlimit, ...]:
    """Return the limits, sorted by name. A single amount is both the limit in force and the highest one."""
    found: list[Rlimit] = []
    for name in RLIMIT_NAMES:
        value = fields.take(name)
        if value is None:
            continue
        path = fields.at(name)
        if isinstance(value, dict):
            bounds = Fields(value, path, fields.problems)
            soft = _read_amount(bounds.take("soft"), bounds.at("soft"), fields.problems)
            hard = _read_amount(bounds.take("hard"), bounds.at("hard"), fields.problems)
            bounds.finish()
        else:
            soft = hard = _read_amount(value, path, fields.problems)
        if hard != RLIMIT_UNLIMITED and not RLIMIT_UNLIMITED < soft <= hard:
            fields.problems.add(path, "soft must be at most hard")
        found.append(Rlimit(name=name, soft=soft, hard=hard))
    fields.finish()
    return tuple(found)


def _read_amount(value: object, path: str, problems: Problems) -> int:
    if value == "unlimited":
        return RLIMIT_UNLIMITED
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= AMOUNT_MAX:
        return value
    problems.add(path, f'must be a whole number of at least 0, or "unlimited", not {quote(value)}')
    return 0
