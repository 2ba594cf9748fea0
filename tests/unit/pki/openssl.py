"""The judge from outside: the `openssl` program, which knows nothing of how our certificates are made."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")


def run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20, check=False)


def show(pem: str) -> str:
    """Return a certificate in words."""
    return run("x509", "-noout", "-text", stdin=pem).stdout


def verify(leaf_pem: str, roots_pem: str, folder: Path, *options: str) -> bool:
    """Return whether openssl accepts a certificate under these roots, with `options` such as `-purpose sslserver`."""
    leaf, roots = folder / "leaf.pem", folder / "roots.pem"
    leaf.write_text(leaf_pem, encoding="ascii")
    roots.write_text(roots_pem, encoding="ascii")
    return run("verify", "-x509_strict", *options, "-CAfile", roots, leaf).returncode == 0
