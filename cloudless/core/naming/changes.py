"""What a watcher of endpoints has to be told when they change: each that is new or different, each that is gone.

Folding the changes over the first list gives the last one, whatever was left out in between: a slow reader is told of
the newest state only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloudless.core.naming.endpoints import Endpoint

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class EndpointChanges:
    """`put`: new or different, best first; `gone`: keys of those that are none any more."""

    put: tuple[Endpoint, ...] = ()
    gone: tuple[Key, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.put or self.gone)

    def fold(self, held: Mapping[Key, Endpoint]) -> dict[Key, Endpoint]:
        """Return what is held once this is taken in."""
        left = {key: endpoint for key, endpoint in held.items() if key not in self.gone}
        return left | {endpoint.key: endpoint for endpoint in self.put}


def compare_endpoints(held: Mapping[Key, Endpoint], now: Iterable[Endpoint]) -> EndpointChanges:
    """Return what leads from `held` to `now`."""
    current = {endpoint.key: endpoint for endpoint in now}
    put = tuple(endpoint for key, endpoint in current.items() if held.get(key) != endpoint)
    return EndpointChanges(put, tuple(sorted(held.keys() - current.keys())))
