"""An identity is one URI, and the server names made from it are legal and never shared by two."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.identity.names import (
    ANY_COORDINATOR,
    Identity,
    IdentityKind,
    find_identity,
    kind_of,
    server_name,
    server_names,
)
from cloudless.core.keys import NAME_PATTERN
from cloudless.core.model import Role

NAMES = st.from_regex(NAME_PATTERN, fullmatch=True).filter(str.isascii)
IDENTITIES = st.builds(Identity, st.just("0123456789abcdef"), st.sampled_from(IdentityKind), NAMES)
HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@given(IDENTITIES)
def test_uri_is_read_back(identity: Identity) -> None:
    assert find_identity(identity.uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "", "spiffe://c/agent/", "spiffe://c/agent/a/b", "spiffe://c/agent/..", "spiffe://c/agent/A", "spiffe:///agent/a",
        "https://c/agent/a", "spiffe://c/root/a", "spiffe://c/agent/a?x", "spiffe://c/agent/a ", "spiffe://c/agent/-a",
        "spiffe://c/agent/a\n", "spiffe://c:1/agent/a", "spiffe://u@c/agent/a", "xspiffe://c/agent/a",
    ],
)  # fmt: skip
def test_what_is_not_exactly_ours_names_nobody(uri: str) -> None:
    assert find_identity(uri) is None


@given(IDENTITIES)
def test_server_names_are_legal_host_names(identity: Identity) -> None:
    for name in server_names(identity):
        assert HOST_NAME.fullmatch(name), name


@given(left=IDENTITIES, right=IDENTITIES)
def test_two_identities_never_share_their_own_server_name(left: Identity, right: Identity) -> None:
    if (left.kind, left.name) != (right.kind, right.name):
        assert server_name(left.kind, left.name) != server_name(right.kind, right.name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a1", "a1"), ("rack.a-1", "rack.a-1"), ("a" * 63, "a" * 63), ("a..b", None), ("a.-b", None), ("a-.b", None)],
)
def test_a_plain_id_is_its_own_label(name: str, expected: str | None) -> None:
    made = server_name(IdentityKind.AGENT, name)
    assert made == f"{expected}.agent.cloudless" if expected else made.startswith("id-")


def test_an_id_that_looks_like_a_replacement_is_replaced_itself() -> None:
    made = server_name(IdentityKind.AGENT, "a..b").partition(".")[0]
    assert server_name(IdentityKind.AGENT, made) != f"{made}.agent.cloudless"


def test_coordinators_share_a_name_and_people_serve_nothing() -> None:
    assert server_names(Identity("c", IdentityKind.COORDINATOR, "c1")) == ("c1.coordinator.cloudless", ANY_COORDINATOR)
    assert server_names(Identity("c", IdentityKind.AGENT, "a1")) == ("a1.agent.cloudless",)
    assert server_names(Identity("c", IdentityKind.PERSON, "ann")) == ()


def test_every_role_has_a_kind() -> None:
    assert [kind_of(role).value for role in Role] == ["coordinator", "agent", "person", "person", "person"]
