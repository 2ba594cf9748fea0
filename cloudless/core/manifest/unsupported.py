"""What a manifest may say, and this version reads, checks and stores, but does not honour yet.

One table. A manifest that sets one of these to anything but its default is refused by name, so that nobody relies
on what does not happen. Who builds a feature deletes its lines here, or takes out the executor that has it now.

Paths are those of `text`; `ports[]` stands for each item of the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudless.core.fields import Problems
from cloudless.core.manifest.text import write_spec
from cloudless.core.model import ExecutorKind, WorkloadSpec

NOBODY = tuple(ExecutorKind)
"""No executor honours it, or it is not an executor's business."""
PROCESS = (ExecutorKind.PROCESS,)

UNSUPPORTED: Mapping[str, tuple[ExecutorKind, ...]] = {
    "imagePullPolicy": PROCESS,
    "ports[].containerPort": PROCESS,
    "ports[].protocol": PROCESS,
    "volumes[].size": PROCESS,
}
"""Each path with the executors that do not honour it."""


def refuse_unsupported(
    spec: WorkloadSpec, problems: Problems, unsupported: Mapping[str, tuple[ExecutorKind, ...]] = UNSUPPORTED
) -> None:
    """Add each field of `spec` that is set but not honoured."""
    written = write_spec(spec)
    for path, executors in unsupported.items():
        if spec.executor not in executors:
            continue
        by = "this version" if executors == NOBODY else f"the {spec.executor.value} executor"
        for found, _ in _places(written, path.split("."), "spec"):
            problems.add(found, f"is not supported by {by}")


def _places(written: object, names: list[str], at: str) -> Iterator[tuple[str, object]]:
    """Yield (path, value) of every place in `written` that the names lead to."""
    if not names:
        yield at, written
        return
    name, *rest = names
    held = written.get(name.removesuffix("[]")) if isinstance(written, dict) else None
    if held is None:
        return
    if name.endswith("[]") and isinstance(held, list):
        for index, item in enumerate(held):
            yield from _places(item, rest, f"{at}.{name.removesuffix('[]')}[{index}]")
    else:
        yield from _places(held, rest, f"{at}.{name}")
