"""Each process on a host of its own: a network namespace with a fixed address, all on one bridge.

The bridge is in the run's own namespace (see `sandbox`), where the test is a host too, called `CLIENT`. Packets are
dropped where they arrive, by rules of nft for one sender, and one service if asked: what is cut from a to b still flows
from b to a, established connections fall silent without a FIN, and a host that is cut off can still talk to itself.
`slow_down` takes the hosts off the bridge and joins them by a wire that delays and reorders (see `wire`).
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterable

from tests.architecture.tree import ROOT
from tests.faults.rig.sandbox import NETNS_DIR

CLIENT = "client"
PORTS = {"api": 8080, "http": 8081, "metrics": 9090, "raft": 2380, "etcd": 2379, "enrol": 8070}
_BRIDGE = "br-faults"
_SUBNET = "10.77.0."
_CHAIN = "inet faults input"
_TABLE = "table inet faults { chain input { type filter hook input priority 0; policy accept; }; }\n"


class Net:
    """The hosts and what is cut between them. A `Place` for a cluster."""

    def __init__(self) -> None:
        self._hosts = {CLIENT: _SUBNET + "1"}
        self._ruled: set[str] = set()
        self._wire: subprocess.Popen[str] | None = None
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
        pairs = {pair for a, b in itertools.product(one, other) for pair in ((a, b), (b, a)) if a != b}
        for a, b in sorted(pairs):
            self.cut(a, b, *uses, percent=percent)

    def isolate(self, name: str) -> None:
        """Cut a host off everybody, the client included."""
        self.part([name], [other for other in self._hosts if other != name])

    def slow_down(self, low_ms: float, high_ms: float) -> None:
        """Delay every packet between hosts by a time between the bounds, each by its own.

        Swaps the devices under the addresses, which established connections survive as a pause.
        """
        if self._wire is None:
            self._wire = self._lay_wire()
        assert self._wire.stdin
        self._wire.stdin.write(f"{low_ms} {high_ms}\n")
        self._wire.stdin.flush()

    def heal(self) -> None:
        """Let everything flow again, over the bridge."""
        if self._wire is not None:
            self._lift_wire()
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

    def _lay_wire(self) -> subprocess.Popen[str]:
        self._run("ip", "addr", "flush", "dev", _BRIDGE)
        for name in self.hosts:
            self._run("ip", "-n", name, "addr", "flush", "dev", "eth0")
        hosts = [f"{name}={address}" for name, address in self._hosts.items()]
        wire = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.rig.wire", *hosts], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert wire.stdout
        assert wire.stdout.readline() == "ready\n"
        return wire

    def _lift_wire(self) -> None:
        """End the wire, and its devices with it, and give the addresses back to the bridge."""
        assert self._wire is not None
        self._wire.kill()
        self._wire.wait()
        self._wire = None
        self._run("ip", "addr", "add", f"{self._hosts[CLIENT]}/24", "dev", _BRIDGE)
        for name in self.hosts:
            self._run("ip", "-n", name, "addr", "add", f"{self._hosts[name]}/24", "dev", "eth0")

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
