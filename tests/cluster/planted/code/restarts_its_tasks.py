"""Planted: as soon as a coordinator is gone, this agent's tasks are killed, once."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

POLL_S = 0.1


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True


def watch() -> None:
    addresses = os.environ["CLOUDLESS_COORDINATOR_ADDR"].split(",")
    while not (all(map(answers, addresses)) and find_tasks()):
        time.sleep(POLL_S)
    while all(map(answers, addresses)):
        time.sleep(POLL_S)
    for pid in find_tasks():
        os.kill(pid, signal.SIGKILL)


def find_tasks() -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes().split(b"\0")[:2] == [b"sleep", b"infinity"]:
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


threading.Thread(target=watch, daemon=True).start()
