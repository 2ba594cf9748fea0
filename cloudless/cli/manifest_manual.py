"""The reference of manifests, written from the table of fields.

`python -m cloudless.cli.manifest_manual > docs/manifest.md`; a test compares the file with what this would write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from cloudless.core.manifest.reference import GROUPS, Entry
from cloudless.core.manifest.text import written_defaults
from cloudless.core.manifest.unsupported import NOBODY, UNSUPPORTED

_INTRO = """\
# The manifest: every field, its unit and its default

```yaml
apiVersion: cloudless/v1     # or cloudless.io/v1
kind: Workload
metadata:
  name: web                  # 1 to 63 lower-case letters, digits, "-" or "."
  namespace: default
  labels: {app: web}
  annotations: {}
spec:
  command: ["python3", "-m", "http.server", "$(CLOUDLESS_PORT_HTTP)"]
  ports: [{name: http}]
  replicas: 3
```

All fields below belong to `spec`. They may be written in camelCase or snake_case; words in capitals in any case, and
as `IfNotPresent` for `IF_NOT_PRESENT`. A field nobody knows is refused with the nearest one there is, and all that is
wrong with a file is said at once. A file may hold several documents; all of them are applied, or none.

- A *duration* is `500ms`, `30s`, `1m30s`, `2h`, `1d`, or a plain number of seconds.
- An *amount* is `128Mi`, `1Gi`, `512M`, or a plain number of MiB. `M` is 10^6 bytes, `Mi` is 2^20.
- *Cores* are `0.5` or `2`; *millicores* `500m`.

Probes may also be spelled as in Kubernetes: `httpGet`, `tcpSocket`, `initialDelaySeconds`, `periodSeconds`,
`timeoutSeconds`; likewise `readOnlyRootFilesystem`, `minReadySeconds` and `progressDeadlineSeconds`.

Changing what or how a task runs replaces the tasks. Changing how many (`mode`, `replicas`, `priority`), where
(`placement`), how it changes (`rollout`), `lostAfter` or `reconcile` touches no task that runs.

A field marked **not yet** is known and checked, but this version does not honour it: setting it to anything but its
default is refused.
"""


def write_manual() -> str:
    """Return the whole page."""
    return "\n".join([_INTRO, *_lines()])


def _lines() -> Iterator[str]:
    defaults = written_defaults()
    for title, entries in GROUPS:
        yield f"## {title}\n"
        yield "| field | what to write | default | meaning |"
        yield "|---|---|---|---|"
        for entry in entries:
            default = entry.default or _shown(defaults[entry.path])
            yield f"| `{entry.path}` | {entry.form} | {default} | {_marked(entry)} |"
        yield ""


def _shown(value: object) -> str:
    match value:
        case None | "" | [] | {}:
            return "none"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _marked(entry: Entry) -> str:
    missing = UNSUPPORTED.get(entry.path)
    marks = []
    if missing == NOBODY:
        marks.append("**Not yet.**")
    elif missing:
        marks.append(f"**Not yet** by the executor {', '.join(executor.value for executor in missing)}.")
    return " ".join([entry.meaning, *marks])


if __name__ == "__main__":
    sys.stdout.write(write_manual())
