"""Who has met, and what that allows: members that have all moved find each other, and strangers find nobody."""

from __future__ import annotations

import asyncio

import pytest

from cloudless.adapters.member.relay import Relay
from cloudless.core.membership.relocation import Met, Seat, plan_relocation

SEATS = {f"c{number}": Seat(f"{number}", f"old{number}:2") for number in (1, 2, 3)}
OWN = Met("c1", "1", "7", "new1:2")


def met(number: int, **changes: object) -> Met:
    fields: dict[str, object] = {"address": f"new{number}:2", "cluster_id": "7", "member_id": f"{number}"} | changes
    return Met(f"c{number}", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "others", "routes", "why"),
    [
        (OWN, [met(2)], {"old1:2": "new1:2", "old2:2": "new2:2"}, ""),
        (OWN, [met(2), met(3)], {f"old{n}:2": f"new{n}:2" for n in (1, 2, 3)}, ""),
        (Met("c1", "1", "7", "old1:2"), [met(2)], {"old2:2": "new2:2"}, ""),
        (OWN, [], {}, "not met: c2, c3"),
        (OWN, [met(2, serves=True), met(3)], {}, "others serve"),
        (OWN, [met(2, member_id="9")], {}, "not met: c2, c3"),
        (OWN, [met(2, cluster_id="8")], {}, "not met: c2, c3"),
        (OWN, [met(4)], {}, "not met: c2, c3"),
        (Met("c1", "1", "7", "old1:2"), [met(2, address="old2:2"), met(3, address="old3:2")], {}, "where it was"),
        (OWN, [met(2, address="old1:2")], {}, "move in two steps"),
        (Met("c1", "1", "", "new1:2"), [met(2, cluster_id="")], {}, "not met"),
    ],
)
def test_a_majority_that_proves_to_be_itself_is_relayed(
    own: Met, others: list[Met], routes: dict[str, str], why: str
) -> None:
    relocation = plan_relocation(own, SEATS, others)
    assert relocation.routes == routes
    assert why in relocation.reason
    assert bool(relocation.reason) is not bool(routes)


def test_learners_make_no_majority() -> None:
    seats = SEATS | {"c4": Seat("4", "old4:2", learner=True)}
    assert not plan_relocation(OWN, seats, [met(4)]).routes
    assert plan_relocation(OWN, seats, [met(2), met(4)]).routes["old4:2"] == "new4:2"


def test_without_a_known_list_nothing_is_relayed() -> None:
    assert not plan_relocation(OWN, {}, [met(2), met(3)]).routes


# --- the relay ---


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request with its own head, and end."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + head)
    writer.close()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5.0)
    writer.close()
    return answer


async def test_the_relay_leads_from_the_old_address_to_the_new_and_nowhere_else() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    new = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    relay = Relay({"gone.example:2380": new})
    await relay.start()
    try:
        plain = await ask(relay.port, b"GET http://gone.example:2380/raft HTTP/1.1\r\nHost: gone.example:2380\r\n\r\n")
        assert plain.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in plain.partition(b"\r\n\r\n")[2]
        tunnel = await ask(relay.port, b"CONNECT gone.example:2380 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        assert tunnel.startswith(b"HTTP/1.1 200 Connection established")
        assert b"GET / HTTP/1.1" in tunnel
        direct = await ask(relay.port, f"GET http://{new}/ HTTP/1.1\r\n\r\n".encode())
        assert direct.startswith(b"HTTP/1.1 200"), "where a member is now may be dialled, too"
        stranger = await ask(relay.port, b"GET http://elsewhere.example:80/ HTTP/1.1\r\n\r\n")
        assert stranger.startswith(b"HTTP/1.1 403")
        assert await ask(relay.port, b"nonsense\r\n\r\n") == b""
    finally:
        await relay.close()
        server.close()


async def test_the_relay_listens_at_an_old_address_that_is_loopbacks() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    probe = await asyncio.start_server(echo, "127.0.0.1", 0)
    old_port = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    relay = Relay({f"127.0.0.1:{old_port}": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"})
    await relay.start()
    try:
        assert (await ask(old_port, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
    finally:
        await relay.close()
        server.close()
