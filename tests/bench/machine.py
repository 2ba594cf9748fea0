"""On what was measured: the machine without its name, and the versions of what ran."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import google.protobuf
import grpc

import cloudless
from etcd.find import find


def machine_facts() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _first_after("/proc/cpuinfo", "model name"),
        "memory_mb": int(_first_after("/proc/meminfo", "MemTotal").split()[0] or 0) // 1024,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "load_1min_at_start": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    return {
        "cloudless": cloudless.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "protobuf": google.protobuf.__version__,
        "etcd": str(find().version),
    }


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def _first_after(file: str, word: str) -> str:
    lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(word)), "0")
