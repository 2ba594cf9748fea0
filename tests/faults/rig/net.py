"""Each process on a host of its own: a network namespace with a fixed address, all on one bridge.

The bridge is in the run's own namespace (see `sandbox`), where the test is a host too, called `CLIENT`. Packets are
dropped where they arrive, by rules of nft for one sender, and one service if asked: what is cut from a to b still flows
from b to a, established connections fall silent without a FIN, and a host that is cut off can still talk to itself.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable

from tests.faults.rig.sandbox import NETNS_DIR

CLIENT = "client"
PORTS = {"api": 8080, "http": 8081, "metrics": 9090, "raft": 2380, "etcd": 2379}
_BRIDGE = "br-faults"
_SUBNET = "10.77.0."
_CHAIN = "inet faults input"
_TABLE = "table inet faults { chain input { type filter hook input priority 0; policy accept; }; }\n"


class Net:
    """The hosts and what is cut between them. A `Place` for a cluster."""

    def __init__(self) -> None:
        self._hosts = {CLIENT: _SUBNET + "1"}
        self._ruled: set[str] = set()
        self._run("ip", "link", "add", _BRIDGE, "type", "bridge")
        self._run("ip", "addr", "add", f"{_SUBNET}1/24", "dev", _BRIDGE)
        self._run("ip", "link", "set", _BRIDGE, "up")
        self._nft(CLIENT, _TABLE)

    # --- a place for processes ---

    def host_of(self, name: str) -> str:
        if name not in self._hosts:
            number = len(self._hosts)
            self._hosts[name] = f"{_SUBNET}{10 + number}"
            self._add_host(name, f"veth{number}")
        return self._hosts[name]

    def ports_of(self, name: str, *uses: str) -> dict[str, int]:
        return {use: PORTS[use] for use in uses}

    def command_at(self, name: str, argv: list[str]) -> list[str]:
        return [*self._enter(name), *argv]

    # --- faults ---

    def cut(self, source: str, target: str, *uses: str, percent: int = 100) -> None:
        """Drop what goes from one host to another, or only what belongs to connections to the named services.

        `percent`: how much of it, drawn at random.
        """
        chance = "" if percent >= 100 else f"numgen random mod 100 < {percent} "
        rules = [f"ip saddr {self._hosts[source]} {match}{chance}drop" for match in _matches(uses)]
        self._nft(target, "".join(f"add rule {_CHAIN} {rule}\n" for rule in rules))
        self._ruled.add(target)

    def part(self, one: Iterable[str], other: Iterable[str], *uses: str, percent: int = 100) -> None:
        """Cut two groups of hosts off each other, in both directions."""
        for a, b in itertools.product(one, other):
            self.cut(a, b, *uses, percent=percent)
            self.cut(b, a, *uses, percent=percent)

    def isolate(self, name: str) -> None:
        """Cut a host off everybody, the client included."""
        self.part([name], [other for other in self._hosts if other != name])

    def heal(self) -> None:
        """Let everything flow again."""
        for name in sorted(self._ruled):
            self._nft(name, f"flush chain {_CHAIN}\n")
        self._ruled.clear()

    def close(self) -> None:
        """Take it all down; the processes must have ended."""
        self.heal()
        for name in self.hosts:
            self._run("ip", "netns", "del", name)
        self._run("ip", "link", "del", _BRIDGE)
        self._nft(CLIENT, "delete table inet faults\n")

    @property
    def hosts(self) -> list[str]:
        """Return every host but the client."""
        return [name for name in self._hosts if name != CLIENT]

    # --- making it so ---

    def _add_host(self, name: str, link: str) -> None:
        self._run("ip", "netns", "add", name)
        self._run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        self._run("ip", "link", "set", link, "master", _BRIDGE, "up")
        inside = ["ip", "-n", name]
        self._run(*inside, "addr", "add", f"{self._hosts[name]}/24", "dev", "eth0")
        self._run(*inside, "link", "set", "eth0", "up")
        self._run(*inside, "link", "set", "lo", "up")
        self._nft(name, _TABLE)

    def _enter(self, name: str) -> list[str]:
        # Not `ip netns exec`: that mounts another /sys, which hides the control groups.
        return [] if name == CLIENT else ["nsenter", f"--net={NETNS_DIR}/{name}"]

    def _nft(self, name: str, script: str) -> None:
        self._run(*self._enter(name), "nft", "-f", "-", text=script)

    @staticmethod
    def _run(*command: str, text: str = "") -> None:
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}\n{text}"


def _matches(uses: tuple[str, ...]) -> list[str]:
    return [f"tcp {end} {PORTS[use]} " for use in uses for end in ("dport", "sport")] or [""]
