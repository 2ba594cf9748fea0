"""What a coordinator without an identity begins with: the founding file, or, where that was deleted, its token."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from cloudless.adapters.pki.vault import found, to_founding_file
from cloudless.adapters.system import SystemClock
from cloudless.coordinator.credentials import load_credentials
from cloudless.errors import BadCredentials, CloudlessError
from cloudless.settings import CoordinatorSettings


def settings_in(folder: Path) -> CoordinatorSettings:
    return CoordinatorSettings(
        node_id="c1", raft_address="127.0.0.1:3000", raft_bind_address="127.0.0.1:3000", data_dir=folder,
        identity_dir=folder / "identity", founding_file=folder / "founding", join_addresses=("127.0.0.1:1",),
    )  # fmt: skip


async def test_the_founding_file_comes_first_and_is_needed_once(tmp_path: Path) -> None:
    settings = replace(settings_in(tmp_path), join_token="no token")
    (tmp_path / "founding").write_bytes(to_founding_file(found("mine", time.time_ns() // 1_000_000)))
    assert (await load_credentials(settings, SystemClock())).cluster_id == "mine"
    (tmp_path / "founding").unlink()
    assert (await load_credentials(settings, SystemClock())).cluster_id == "mine"


async def test_without_founding_file_and_token_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCredentials, match=r"founding file .* cannot be read") as caught:
        await load_credentials(settings_in(tmp_path), SystemClock())
    assert "CLOUDLESS_JOIN_TOKEN" in (caught.value.hint or "")


@pytest.mark.parametrize("in_a_file", [False, True])
async def test_who_lost_everything_after_the_founding_joins_by_its_token(tmp_path: Path, in_a_file: bool) -> None:
    (tmp_path / "token").write_text("this is no token\n")
    settings = settings_in(tmp_path)
    settings = replace(settings, join_token_file=tmp_path / "token") if in_a_file else replace(settings, join_token="x")
    with pytest.raises(CloudlessError, match="token"):
        await load_credentials(settings, SystemClock())
