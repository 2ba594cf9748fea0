"""A channel that is held for long follows its credentials."""

from __future__ import annotations

import time
from pathlib import Path

from cloudless.adapters.grpc.channel import INSECURE, Dialler, RenewedChannel
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.self_signing import sign_own
from cloudless.adapters.pki.vault import found

NOW_MS = time.time_ns() // 1_000_000
NOBODY = "127.0.0.1:1"


async def test_after_a_renewal_calls_go_over_another_channel(tmp_path: Path) -> None:
    holdings, directory = found("ours", NOW_MS), IdentityDir(tmp_path)
    shown = sign_own(holdings, "c1", directory, NOW_MS)
    channel = RenewedChannel(Dialler(lambda: shown), NOBODY)
    first = channel.get()
    assert channel.get() is first
    directory.forget()
    shown = sign_own(holdings, "c1", directory, NOW_MS)
    assert channel.get() is not first
    await channel.close()


async def test_without_credentials_it_stays_the_same() -> None:
    channel = RenewedChannel(INSECURE, NOBODY)
    assert channel.get() is channel.get()
    await channel.close()
