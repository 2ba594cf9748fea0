"""An agent's own doors and its own identity: metrics that a silent caller does not hold up, a token that is over."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

from cloudless.adapters.pki.authority import LEAF_LIFETIME_S
from cloudless.adapters.pki.credentials import build_credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.request import key_to_pem
from cloudless.adapters.pki.vault import found
from cloudless.adapters.system import SystemClock
from cloudless.agent.credentials import obtain_credentials
from cloudless.agent.metrics import AgentMetrics
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.model import AuthorityPurpose
from cloudless.settings import read_agent_settings

NOW_MS = time.time_ns() // 1_000_000
NOBODY = "127.0.0.1:1"


def enrolled(path: Path) -> IdentityDir:
    """Return the identity of agent a1 as if it had been let in."""
    holdings, directory = found("ours", NOW_MS, leaf_lifetime_s=LEAF_LIFETIME_S), IdentityDir(path)
    authority, key = holdings.open_issuing(AuthorityPurpose.CLUSTER), directory.prepare_key()
    leaf = authority.sign_identity(Identity("ours", IdentityKind.AGENT, "a1"), key.public_key(), NOW_MS)
    roots = holdings.roots_pem(AuthorityPurpose.CLUSTER)
    directory.store(build_credentials(authority.chain_pem(leaf), key_to_pem(key), roots))
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_who_connects_to_the_metrics_and_says_nothing_holds_up_nobody(tmp_path: Path) -> None:
    directory, port = enrolled(tmp_path), free_port()
    end = AgentMetrics().serve(f"127.0.0.1:{port}", directory)
    own = ssl.create_default_context(cafile=str(directory.roots_file))
    own.check_hostname = False
    own.load_cert_chain(directory.identity_file)

    def scrape() -> str:
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", timeout=3, context=own) as answer:
            return str(answer.read().decode())

    try:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        assert "cloudless_agent_up 1.0" in await asyncio.to_thread(scrape)
        for _, writer in silent:
            writer.close()
    finally:
        end()


async def test_an_agent_that_was_let_in_needs_its_tokens_file_no_more(tmp_path: Path) -> None:
    directory = enrolled(tmp_path / "identity")
    settings = read_agent_settings(
        {"CLOUDLESS_NODE_ID": "a1", "CLOUDLESS_COORDINATOR_ADDR": NOBODY, "CLOUDLESS_DATA_DIR": str(tmp_path)}
    )
    settings = replace(settings, join_token_file=tmp_path / "deleted")
    credentials = await obtain_credentials(settings, SystemClock())
    assert credentials() == directory.load()


async def test_a_token_that_nobody_can_be_asked_about_changes_nothing(tmp_path: Path) -> None:
    directory = enrolled(tmp_path / "identity")
    settings = read_agent_settings(
        {
            "CLOUDLESS_NODE_ID": "a1",
            "CLOUDLESS_COORDINATOR_ADDR": NOBODY,
            "CLOUDLESS_ENROL_AT": NOBODY,
            "CLOUDLESS_DATA_DIR": str(tmp_path),
            "CLOUDLESS_JOIN_TOKEN": "cl1.abcdefgh23." + "a" * 52 + "." + "b" * 64,
        }
    )
    credentials = await obtain_credentials(settings, SystemClock())
    assert credentials() == directory.load()
