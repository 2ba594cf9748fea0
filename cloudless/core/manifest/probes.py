"""Read probes: `http: {path, port}`, `tcp: {port}` or `exec: {command}`, and when and how often."""

from __future__ import annotations

from cloudless.core.fields import Fields, quote
from cloudless.core.model import Probe, ProbeKind

DURATION_MAX_S = 3_600.0
PERIOD_MIN_S = 0.1
TIMEOUT_MIN_S = 0.05
THRESHOLD_MAX = 100
COMMAND_ITEMS_MAX = 256


def read_probe(fields: Fields, name: str) -> Probe | None:
    """Return the probe `name`, None if there is none. Kubernetes' own spellings are accepted."""
    value = fields.take(name)
    if value is None:
        return None
    probe = Fields(value, fields.at(name), fields.problems)
    if not isinstance(value, dict):
        return None
    probe.accept(
        httpGet="http",
        tcpSocket="tcp",
        initialDelaySeconds="initialDelay",
        periodSeconds="period",
        timeoutSeconds="timeout",
    )
    kind, command, port, path = _read_question(probe)
    base = Probe(kind=kind)
    made = Probe(
        kind=kind,
        command=command,
        port=port,
        path=path,
        initial_delay_s=probe.duration("initialDelay", base.initial_delay_s, most_s=DURATION_MAX_S),
        period_s=probe.duration("period", base.period_s, least_s=PERIOD_MIN_S, most_s=DURATION_MAX_S),
        timeout_s=probe.duration("timeout", base.timeout_s, least_s=TIMEOUT_MIN_S, most_s=DURATION_MAX_S),
        success_threshold=probe.whole("successThreshold", base.success_threshold, least=1, most=THRESHOLD_MAX),
        failure_threshold=probe.whole("failureThreshold", base.failure_threshold, least=1, most=THRESHOLD_MAX),
    )
    probe.finish()
    return made


def _read_question(probe: Fields) -> tuple[ProbeKind, tuple[str, ...], str, str]:
    """Return kind, command, port and path; what goes with another kind is empty."""
    asked = [kind for kind in ProbeKind if probe.has(kind.value)]
    if len(asked) != 1:
        probe.problems.add(probe.path, "needs one of http, tcp and exec, and only one")
    command: tuple[str, ...] = ()
    port = path = ""
    for kind in ProbeKind:
        question = probe.child(kind.value)
        if kind not in asked:
            continue
        if kind is ProbeKind.EXEC:
            command = question.texts("command", count_max=COMMAND_ITEMS_MAX, length_max=16_384)
            if not command or not command[0]:
                probe.problems.add(question.at("command"), "is missing: the program and its arguments")
        else:
            port = _read_port(question)
        if kind is ProbeKind.HTTP:
            path = _read_url_path(question)
        question.finish()
    return (asked or [ProbeKind.TCP])[0], command, port, path


def _read_port(question: Fields) -> str:
    value = question.take("port")
    if isinstance(value, str) and value:
        return value[:64]
    said = "" if value is None else f", not {quote(value)}"
    question.problems.add(question.at("port"), f"must be the name of a declared port{said}")
    return ""


def _read_url_path(question: Fields) -> str:
    path = question.text("path", "/", length_max=1_024)
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        message = f'must begin with "/" and hold no spaces and only ASCII, not {quote(path)}'
        question.problems.add(question.at("path"), message)
    return path
