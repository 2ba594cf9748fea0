"""Write `docs/metrics.md` from the declarations: `python -m cloudless.observability.manual > docs/metrics.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from cloudless.observability.declared import Declared, Kind
from cloudless.observability.metrics import AGENT, AGENT_PREFIX, COORDINATOR, COORDINATOR_PREFIX

_INTRO = """# Metrics

Written from the declarations in `cloudless/observability/metrics.py`: `python -m cloudless.observability.manual`.

| who | where | what |
|---|---|---|
| a coordinator | port 9090 (`CLOUDLESS_METRICS_ADDR`), `/metrics`; its HTTP port, too | `cloudless_coordinator_…` |
| its etcd member | the same port, `/metrics/etcd` | etcd's own, passed through as they are |
| an agent | port 9092 (`CLOUDLESS_METRICS_ADDR`), `/metrics` | `cloudless_agent_…` |

With TLS only who shows a certificate of the cluster is answered; `compose/prometheus/prometheus.yml` shows how
Prometheus does, `compose/prometheus/rules/` what it watches for, `docs/runbooks/` what to do then.

Every metric has a value from the first scrape on, and each listed label value a series of its own. Counters begin anew
with their process. Values that can only be told by the leader are 0 at the others. `process_…` and `python_…` are
prometheus-client's.
"""


def write_manual() -> str:
    """Return the whole page."""
    return "\n".join(
        [
            _INTRO,
            *_table("Coordinators", COORDINATOR_PREFIX, COORDINATOR),
            *_table("Agents", AGENT_PREFIX, AGENT),
        ]
    )


def _table(title: str, prefix: str, declared: Sequence[Declared]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"All names begin with `{prefix}`.\n"
    yield "| name | kind | labels | meaning |"
    yield "|---|---|---|---|"
    for one in declared:
        yield f"| `{one.sample_name}` | {one.kind.value} | {_labels(one)} | {_meaning(one)} |"
    yield ""


def _labels(one: Declared) -> str:
    if not one.labels:
        return ""
    names = ", ".join(f"`{label}`" for label in one.labels)
    return f"{names}: {', '.join(one.values)}" if one.values else f"{names} ({one.bound})"


def _meaning(one: Declared) -> str:
    if one.kind is not Kind.HISTOGRAM:
        return one.meaning
    return f"{one.meaning}; buckets from {one.buckets[0]:g} to {one.buckets[-1]:g}"


if __name__ == "__main__":
    sys.stdout.write(write_manual())
