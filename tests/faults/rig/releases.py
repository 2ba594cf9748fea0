"""Releases of cloudless for tests of upgrades: this one, and later ones made from it.

A later release is a copy of the package in a directory of its own, with a higher version and with the differences that
a next release has: fields in stored records (one used at once, one only from its feature level on), a setting, an enum
value, and fields and kinds of messages on sessions and in answers. Its protobuf code is compiled from its own protos. A
process becomes of that release by being started in that directory (`Process.tree`).
"""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cloudless
from cloudless.core.versions import level_of, parse_version
from tests.architecture.tree import ROOT

ORIGIN = "applied-by-a-later-release"
GRADE = "graded-at-the-level-of-a-later-release"


@dataclass(frozen=True, slots=True)
class Release:
    """One release: its version, and the directory its processes are started in."""

    version: str
    tree: Path

    @property
    def level(self) -> str:
        return level_of(self.version)


THIS = Release(cloudless.__version__, ROOT)


def build_release(folder: Path, minors_ahead: int) -> Release:
    """Make a release that many minor versions after this one."""
    parsed = parse_version(cloudless.__version__)
    assert parsed
    release = Release(f"{parsed[0]}.{parsed[1] + minors_ahead}.0", folder / f"release-{minors_ahead}")
    for part in ("cloudless", "etcd", "protos"):
        shutil.copytree(ROOT / part, release.tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path, before, after in (*_PROTOS, *_MODEL, *_BEHAVIOUR):
        _edit(release.tree / path, before, after.replace("NEXT_LEVEL", release.level))
    _edit(release.tree / "cloudless/__init__.py", f'"{cloudless.__version__}"', f'"{release.version}"')
    _compile(release.tree)
    return release


def _edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, f"{path} has {before!r} {text.count(before)} times: make the later release anew"
    path.write_text(text.replace(before, after))


def _compile(tree: Path) -> None:
    protos = sorted(str(path.relative_to(tree / "protos")) for path in tree.glob("protos/cloudless/rpc/v1/*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "protos", "--python_out=.", *protos]
    subprocess.run(command, cwd=tree, check=True)
    compileall.compile_dir(tree / "cloudless", quiet=1)  # at the first start it would look like a slow one


_OBJECTS, _AGENT, _CLUSTER = (f"protos/cloudless/rpc/v1/{name}.proto" for name in ("objects", "agent", "cluster"))

# What is added, and where: after the text that is named.
_PROTOS = tuple(
    (path, after, f"{after}{added}")
    for path, after, added in (
        (_OBJECTS, "  int64 deleted_at_ms = 11;\n", "  string origin = 912;\n  string grade = 913;\n"),
        (_OBJECTS, "  double lost_after_s = 13;\n", "  string note = 914;\n"),
        (_OBJECTS, "  int64 stopped_at_ms = 13;\n", "  string planner = 914;\n"),
        (_OBJECTS, "  int64 finished_at_ms = 14;\n", "  string observer = 915;\n"),
        (_OBJECTS, "  string agent_id = 14;\n", "  string kernel = 915;\n"),
        (_OBJECTS, "  bool even_voters = 9;\n  int64 updated_at_ms = 10;\n", "  double promote_pause_s = 911;\n"),
        (_OBJECTS, "  SEVERITY_ERROR = 3;\n", "  SEVERITY_NOTICE = 904;\n"),
        (_CLUSTER, "  optional bool even_voters = 11;\n", "  optional double promote_pause_s = 912;\n"),
        (_CLUSTER, "  string feature_level = 19;\n", "  string codename = 950;\n"),
        (_AGENT, "    ChangeRole change_role = 4;\n", "    Heartbeat second_wind = 905;\n"),
        (_AGENT, "  int64 incarnation = 6;\n", "  repeated string abilities = 907;\n"),
        (_AGENT, "    Shed shed = 6;\n", "    Heartbeat second_wind = 907;\n"),
        (_AGENT, "  repeated KnownCoordinator coordinators = 5;\n", "  string motto = 906;\n"),
    )
)

_MODEL = tuple(
    (f"cloudless/core/model/{name}.py", after, f"{after}{added}")
    for name, after, added in (
        ("workload", "    deleted_at_ms: int = 0\n", '    origin: str = ""\n    grade: str = ""\n'),
        ("workload", "    lost_after_s: float = 0.0\n", '    note: str = ""\n'),
        ("task", "    stopped_at_ms: int = 0\n", '    planner: str = ""\n'),
        (
            "task",
            '    host: str = ""\n    ports: Mapping[str, int] = field(default_factory=dict)\n',
            '    observer: str = ""\n',
        ),
        ("node", '    agent_id: str = ""\n', '    kernel: str = ""\n'),
        (
            "membership",
            "    even_voters: bool = False\n    updated_at_ms: int = 0\n",
            "    promote_pause_s: float = 1.5\n",
        ),
        ("event", '    ERROR = "ERROR"\n', '    NOTICE = "NOTICE"\n'),
    )
)

_API, _SESSIONS = "cloudless/coordinator/api", "cloudless/coordinator/sessions.py"

# What it does with them: the text that is replaced, and by what.
_BEHAVIOUR = (
    (
        f"{_API}/workloads.py",
        "                created_at_ms=now_ms,\n",
        "                created_at_ms=now_ms,\n"
        f'                origin="{ORIGIN}",\n'
        f'                grade="{GRADE}" if self._may_grade() else "",\n',
    ),
    (
        f"{_API}/workloads.py",
        "    def _apply_one(\n",
        "    def _may_grade(self) -> bool:\n"
        "        from cloudless.core.versions import has_reached\n\n"
        "        cluster = self._access.view.cluster\n"
        '        return cluster is not None and has_reached(cluster.feature_level, "NEXT_LEVEL")\n\n'
        "    def _apply_one(\n",
    ),
    (
        "cloudless/core/orchestration/changes.py",
        "        created_at_ms=decider.now_ms,\n",
        '        created_at_ms=decider.now_ms,\n        planner="a later release",\n',
    ),
    (
        "cloudless/core/taskflow.py",
        "        finished_at_ms=task.finished_at_ms,\n",
        '        finished_at_ms=task.finished_at_ms,\n        observer="a later release",\n',
    ),
    (
        "cloudless/agent/config.py",
        "        agent_id=agent_id,\n",
        '        agent_id=agent_id,\n        kernel="of a later release",\n',
    ),
    (f"{_API}/access.py", "            severity=Severity.INFO,\n", "            severity=Severity.NOTICE,\n"),
    (
        f"{_API}/cluster.py",
        "            version=self._version,\n",
        '            version=self._version,\n            codename="later",\n',
    ),
    (
        _SESSIONS,
        "            yield self._welcome(session)\n",
        "            yield self._welcome(session)\n"
        "            yield pb.CoordinatorMessage(second_wind=pb.Heartbeat(sequence=1))\n",
    ),
    (
        _SESSIONS,
        "                coordinators=self._known(),\n            )\n        )\n",
        '                coordinators=self._known(),\n                motto="later",\n            )\n        )\n',
    ),
    (
        "cloudless/agent/session.py",
        '        "welcome": _on_other,\n',
        '        "welcome": _on_other,\n        "second_wind": _on_other,\n',
    ),
    (
        "cloudless/agent/session.py",
        "            incarnation=head.incarnation,\n"
        "        )\n"
        "        await self._write(agent_pb2.AgentMessage(hello=hello))\n",
        "            incarnation=head.incarnation,\n"
        '            abilities=["later"],\n'
        "        )\n"
        "        await self._write(agent_pb2.AgentMessage(hello=hello))\n"
        "        await self._write(agent_pb2.AgentMessage(second_wind=agent_pb2.Heartbeat(sequence=1)))\n",
    ),
)
