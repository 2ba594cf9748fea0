"""`cloudless console`: who may use it, and what it does when a coordinator is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest

from cloudless.adapters.http.calling import HttpCalls
from cloudless.adapters.http.exchange import JSON, Answer, Asked, Stream
from cloudless.adapters.http.server import HttpServer
from cloudless.cli.console.coordinators import Coordinators
from cloudless.cli.console.gate import Gate
from cloudless.cli.console.proxy import Proxy
from cloudless.cli.console.serving import check_loopback
from cloudless.errors import InvalidSpec

TOKEN = "t0ken-of-the-test"
OWN = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Upstream:
    """A coordinator as far as the proxy sees it. `behave`: "answer", "break" or "hang"."""

    name: str
    behave: str = "answer"
    status: int = 200
    asked: list[Asked] = field(default_factory=list)
    server: HttpServer | None = None
    broken: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> str:
        self.server = HttpServer("127.0.0.1:0", {}, self.answer)
        await self.server.start()
        return f"127.0.0.1:{self.server.port}"

    async def answer(self, asked: Asked) -> Answer | Stream:
        self.asked.append(asked)
        if self.behave == "hang":
            await asyncio.sleep(30)
        if asked.path == "/v1/watch":
            return Stream("text/event-stream", self._events(), self._closed)
        return Answer(self.status, f'{{"by": "{self.name}"}}', JSON, {"ETag": '"7"', "Set-Cookie": "a=b"})

    async def _events(self) -> AsyncIterator[bytes]:
        yield f"data: {self.name}\n\n".encode()
        await self.broken.wait()

    async def _closed(self) -> None:
        return


@dataclass
class Rig:
    """A proxy before two coordinators."""

    base: str
    gate: Gate
    first: Upstream
    second: Upstream
    coordinators: Coordinators
    session: aiohttp.ClientSession
    addresses: list[str]

    async def ask(self, verb: str, path: str, **headers: str) -> tuple[int, str]:
        given = {**OWN, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.session.request(verb, self.base + path, headers=given) as answer:
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    first, second = Upstream("first"), Upstream("second")
    addresses = [await first.start(), await second.start()]
    async with contextlib.AsyncExitStack() as stack:
        for upstream in (first, second):
            assert upstream.server is not None
            stack.push_async_callback(upstream.server.stop)
        calls = await stack.enter_async_context(HttpCalls(None, ""))

        async def probe(address: str) -> bool | None:
            return {"answer": True, "hang": None}[(first if address == addresses[0] else second).behave]

        coordinators = Coordinators(probe)
        coordinators.learn(addresses)
        handler: list[Callable[[Asked], object]] = []

        async def answer(asked: Asked) -> Answer | Stream:
            return await handler[0](asked)  # type: ignore[misc,no-any-return]

        server = HttpServer("127.0.0.1:0", {}, answer)
        await server.start()
        stack.push_async_callback(server.stop)
        gate = Gate("127.0.0.1", server.port, TOKEN)
        handler.append(Proxy(gate, calls, coordinators).answer)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        base = f"http://127.0.0.1:{server.port}"
        yield Rig(base, gate, first, second, coordinators, session, addresses)


# --- who may ---


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": ""}, 401, "no-token"),
        ({"Authorization": "Bearer of another"}, 401, "no-token"),
        ({"Authorization": "Bearer tökén"}, 401, "no-token"),
        ({"Cookie": f"token={TOKEN}", "Authorization": ""}, 401, "no-token"),
        ({"Host": "evil.example"}, 403, "denied"),
        ({"Host": "127.0.0.1.evil.example:80"}, 403, "denied"),
        ({"Origin": "http://evil.example"}, 403, "denied"),
        ({"Origin": "null"}, 403, "denied"),
        ({"Origin": "http://127.0.0.1:1"}, 403, "denied"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "denied"),
        ({"Sec-Fetch-Site": "same-site"}, 403, "denied"),
    ],
)
async def test_only_the_page_itself_may_ask(headers: dict[str, str], status: int, code: str) -> None:
    async with rig() as at:
        for verb in ("GET", "DELETE"):
            async with at.session.request(verb, at.base + "/v1/nodes", headers={**OWN, **headers}) as answer:
                assert (answer.status, (await answer.json(content_type=None))["code"]) == (status, code)
        assert at.first.asked == at.second.asked == []


async def test_the_page_may_ask_and_takes_neither_token_nor_cookie_nor_origin_along() -> None:
    async with rig() as at:
        headers = {"Origin": at.base, "Cookie": "a=b", "Sec-Fetch-Site": "same-origin", "Idempotency_Key": "k"}
        assert await at.ask("GET", "/v1/nodes?limit=2", **headers) == (200, '{"by": "first"}')
        (asked,) = at.first.asked
        assert (asked.path, asked.query, asked.headers["idempotency-key"]) == ("/v1/nodes", "limit=2", "k")
        assert not {"authorization", "cookie", "origin"} & asked.headers.keys()
        async with at.session.get(at.base + "/v1/nodes", headers=OWN) as answer:
            assert answer.headers["ETag"] == '"7"'
            assert "Set-Cookie" not in answer.headers


async def test_the_files_need_no_token_but_the_right_name_and_nothing_else_is_there() -> None:
    async with rig() as at:
        async with at.session.get(at.base + "/console/") as answer:
            assert answer.status == 200
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        async with at.session.get(at.base + "/console/", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 403
        for path in ("/metrics", "/livez", "/console/nothing.js", "/v1"):
            assert (await at.ask("GET", path))[0] == 404
        assert (await at.ask("POST", "/console/main.js"))[0] == 405
        assert at.first.asked == []


def test_the_address_has_the_token_where_no_server_sees_it_and_tokens_differ() -> None:
    assert Gate("127.0.0.1", 80, TOKEN).url == f"http://127.0.0.1:80/console/#token={TOKEN}"
    urls = {Gate("127.0.0.1", 80).url for _ in range(3)}
    assert len(urls) == 3
    assert all(len(url.partition("#token=")[2]) >= 43 for url in urls)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:0", "10.0.0.1:80", "[::]:80", ":80", "example.org:80", "127.0.0.1", "[::1"]
)
def test_an_address_that_others_reach_is_refused(address: str) -> None:
    with pytest.raises(InvalidSpec, match="--listen"):
        check_loopback(address)


def test_loopback_is_taken() -> None:
    assert check_loopback("127.0.0.1:0") == "127.0.0.1:0"
    assert check_loopback("[::1]:8000") == "[::1]:8000"
    assert check_loopback("localhost:8000") == "127.0.0.1:8000"


# --- when a coordinator is gone ---


async def test_a_coordinator_that_is_gone_is_passed_over_and_not_asked_first_again() -> None:
    async with rig() as at:
        assert at.first.server is not None
        await at.first.server.stop()
        assert await at.ask("GET", "/v1/nodes") == (200, '{"by": "second"}')
        assert at.coordinators.current == at.addresses[1]
        assert await at.ask("DELETE", "/v1/workloads/default/web") == (200, '{"by": "second"}')


async def test_one_that_cannot_now_is_passed_over_for_what_may_be_repeated() -> None:
    async with rig() as at:
        at.first.status = 503
        assert await at.ask("GET", "/v1/nodes") == (200, '{"by": "second"}')
        at.coordinators.prefer(at.addresses[0])
        assert (await at.ask("POST", "/v1/cluster/transfer-leader"))[0] == 503
        assert (await at.ask("POST", "/v1/nodes/n/drain", Idempotency_Key="k"))[0] == 200


async def test_a_frozen_one_is_given_up_with_its_stream_and_what_waits() -> None:
    async with rig() as at:
        watching = asyncio.create_task(at.coordinators.watch(lambda: True))
        async with at.session.get(at.base + "/v1/watch", headers=OWN) as stream:
            assert await stream.content.readline() == b"data: first\n"
            at.first.behave = "hang"
            async with asyncio.timeout(5.0):
                said = await at.ask("GET", "/v1/nodes")
                await stream.read()  # ends
        assert said == (200, '{"by": "second"}')
        watching.cancel()


async def test_what_may_have_happened_is_not_repeated() -> None:
    async with rig() as at:
        at.first.behave = "hang"
        asking = asyncio.create_task(at.ask("POST", "/v1/cluster/transfer-leader"))
        async with asyncio.timeout(5.0):
            while not at.first.asked:
                await asyncio.sleep(0.01)
            at.coordinators.give_up(at.addresses[0])
            status, text = await asking
        assert (status, "commit-uncertain" in text) == (504, True)
        assert at.second.asked == []


async def test_without_any_coordinator_it_says_so() -> None:
    async with rig() as at:
        for upstream in (at.first, at.second):
            assert upstream.server is not None
            await upstream.server.stop()
        status, text = await at.ask("GET", "/v1/nodes")
        assert (status, "no coordinator answers" in text) == (503, True)
