"""Redaction: no secret leaves, and what a person needs to understand a bundle stays."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.redaction import MARK, redact, redact_mapping

BLOCK = "PRIVATE " + "KEY"
S = "Zx9" + "q" * 20 + "7Kw"  # shaped like a secret; built so that no scanner takes it for one


@pytest.mark.parametrize(
    "text",
    [
        f"-----BEGIN EC {BLOCK}-----\nMHcCAQ{S}\n-----END EC {BLOCK}-----",
        f"-----BEGIN {BLOCK}-----\n{S}",  # cut off in the middle by a tail
        f"password={S}",
        f'"password": "{S}"',
        f"APP_TOKEN={S}",
        f"CLOUDLESS_JOIN_TOKEN={S}",
        f"db_password: {S}",
        f"api-key: '{S}'",
        f"--token {S}",
        f"--token={S}",
        f"Authorization: Bearer {S}",
        f"authorization: Basic {S}==",
        f"postgres://user:{S}@db.example/app",
        f"join with cjt-4f2a9c.{S}",
        f"eyJhbGciOi.{S}.{S}",
        f"AWS_SECRET_ACCESS_KEY={S}/{S}",
        f"cluster_key = {S}",
        f"the value {S}{S} was there",
        f'{{"env": {{"STRIPE_SECRET": "{S}"}}}}',
        f"passphrase: {S}, more",
    ],
)
def test_a_secret_is_taken_out(text: str) -> None:
    found = redact(text)
    assert S not in found
    assert MARK in found


@pytest.mark.parametrize(
    "text",
    [
        "coordinator-1 leads (term 4711) at 10.0.0.5:8080",
        "digest 8c2f6c1d7be04a1f9d3c55aa01b2c3d4 at revision 12",
        "member 8e9e05c52164694d votes in cluster cdf818194e3a8c32",
        "the token was revoked",
        "token_ttl_s=3600 tokens_total=4 token_id=abc",
        "tls_key_file=/var/lib/cloudless/pki/peer.key",
        "etcd --data-dir=/var/lib/cloudless/coordinator-1/data/etcd --name=coordinator-1 --election-timeout=500",
        "no leader: the lease of coordinator-2 has not ended yet",
        "cloudless_coordinator_etcd_db_bytes 20480.0",
        "password=",
        "2026-11-23T08:16:27.123456Z panic: runtime error",
        "enrolled as spiffe://80cfe88b48cd4d649f1a6c14e2cbf412/agent/agent-1",
    ],
)
def test_what_explains_stays(text: str) -> None:
    assert redact(text) == text


def test_the_environment_keeps_its_names() -> None:
    shown = redact_mapping({"CLOUDLESS_NODE_ID": "c1", "APP_SECRET": "x", "URL": f"http://u:{S}@h/", "EMPTY_TOKEN": ""})
    assert shown == {
        "APP_SECRET": MARK,
        "CLOUDLESS_NODE_ID": "c1",
        "EMPTY_TOKEN": "",
        "URL": f"http://u:{MARK}@h/",
    }


@given(st.text(), st.text(string.ascii_letters + string.digits, min_size=24, max_size=60))
def test_nothing_around_it_saves_a_secret(around: str, secret: str) -> None:
    text = f"{around}\npassword={secret}\n{around}"
    assert f"password={secret}" not in redact(text)


@given(st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
