"""A wire that is slow: hosts joined by packets carried in this process, each as late as it likes.

The kernel at hand may lack `netem`, so every host gets a TUN device instead of a veth, and this process carries each
packet from one to the other after a delay drawn between two bounds. What is sent later may arrive earlier, which is
all that reordering is. Bounds are changed by a line on stdin: ``MINIMUM_MS MAXIMUM_MS``. Loss is left to `net`.

`python -m tests.faults.rig.wire NAME=ADDRESS…`, with NAME a network namespace, or `client` for this process's own;
says "ready" when all devices exist.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from ipaddress import IPv4Address

from tests.faults.rig.sandbox import NETNS_DIR

DEVICE = "wire0"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_PACKET_BYTES_MAX = 2048
_WAITING_MAX = 20_000


def open_device(namespace: str) -> int:
    """Return the descriptor of a new TUN device in a network namespace ("": our own)."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if namespace:
            there = os.open(f"{NETNS_DIR}/{namespace}", os.O_RDONLY)
            assert libc.setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            os.close(there)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        return device
    finally:
        assert libc.setns(own, _CLONE_NEWNET) == 0
        os.close(own)


def carry(devices: dict[bytes, int]) -> None:
    """Carry packets between devices by address until stdin is closed."""
    low_s = high_s = 0.0
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    watched = [0, *devices.values()]
    while True:
        timeout_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select(watched, [], [], timeout_s)
        for device in readable:
            if device == 0:
                line = os.read(0, 100).decode().split()
                if not line:
                    return
                low_s, high_s = float(line[-2]) / 1000, float(line[-1]) / 1000
                continue
            packet = os.read(device, _PACKET_BYTES_MAX)
            target = devices.get(packet[16:20])
            if target is not None and len(waiting) < _WAITING_MAX:
                number += 1
                due_s = time.monotonic() + random.uniform(low_s, high_s)
                heapq.heappush(waiting, (due_s, number, target, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, packet = heapq.heappop(waiting)
            try:
                os.write(target, packet)
            except OSError:
                continue  # its queue is full, or it is going down: a lost packet


def main(hosts: list[str]) -> None:
    devices = {}
    for host in hosts:
        name, _, address = host.partition("=")
        namespace = "" if name == "client" else name
        devices[IPv4Address(address).packed] = open_device(namespace)
        ip = ["ip", "-n", name] if namespace else ["ip"]
        subprocess.run([*ip, "addr", "add", f"{address}/24", "dev", DEVICE], check=True)
        subprocess.run([*ip, "link", "set", DEVICE, "up"], check=True)
    print("ready", flush=True)
    carry(devices)


if __name__ == "__main__":
    main(sys.argv[1:])
