"""Run the proxy: listen, learn where coordinators are, keep the certificate fresh, open the browser."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from html import escape
from ipaddress import ip_address
from pathlib import Path

import click
from loguru import logger

from cloudless.adapters.http.calling import HttpCalls, Unreached
from cloudless.adapters.http.exchange import Answer, Asked, Stream
from cloudless.adapters.http.server import HttpServer
from cloudless.cli.console.coordinators import Coordinators
from cloudless.cli.console.gate import Gate
from cloudless.cli.console.proxy import Proxy
from cloudless.core.discovery.addresses import split_address
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.errors import CloudlessError, InvalidSpec, Problem

LEARN_PERIOD_S = 15.0
LEARN_AGAIN_S = 1.0
RENEW_PERIOD_S = 600.0
STATUS_READY = 200

FindAddresses = Callable[[], list[str]]
"""Asks the cluster for the HTTP addresses of its coordinators; blocks. Raises CloudlessError."""
FindTls = Callable[[], ssl.SSLContext | None]
"""Returns what the person proves to be by, renewed if that is due; blocks. Raises CloudlessError."""


def check_loopback(address: str) -> str:
    """Return an address to listen on as it was given. Raises InvalidSpec for one that others could reach."""
    try:
        host, _ = split_address(address)
        own = host == "localhost" or ip_address(host).is_loopback
    except ValueError as error:
        raise InvalidSpec([Problem("--listen", f"must be HOST:PORT, such as 127.0.0.1:0: {error}")]) from error
    if not own:
        text = f"{address} could be reached by others, who would act as you: only loopback, such as 127.0.0.1:0"
        raise InvalidSpec([Problem("--listen", text)])
    return address.replace("localhost", "127.0.0.1", 1) if host == "localhost" else address


async def serve(listen: str, find_addresses: FindAddresses, find_tls: FindTls, *, browser: bool) -> None:
    """Serve until the process is told to end. Raises PortInUse, and what a first certificate fails with."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tls = await asyncio.to_thread(find_tls)
    async with contextlib.AsyncExitStack() as stack:
        calls = await stack.enter_async_context(HttpCalls(tls, ANY_COORDINATOR))

        async def probe(address: str) -> bool | None:
            try:
                answer = await calls.ask(address, "GET", "/healthz")
            except Unreached:
                return None
            return isinstance(answer, Answer) and answer.status == STATUS_READY

        coordinators = Coordinators(probe)
        host, _ = split_address(listen)
        proxy: Proxy | None = None

        async def answer(asked: Asked) -> Answer | Stream:
            assert proxy is not None
            return await proxy.answer(asked)

        server = HttpServer(listen, {}, answer)
        await server.start()
        stack.push_async_callback(server.stop)
        gate = Gate(host, server.port)
        proxy = Proxy(gate, calls, coordinators)
        begun = [
            asyncio.create_task(_learn(coordinators, find_addresses)),
            asyncio.create_task(_renew(calls, find_tls)),
            asyncio.create_task(coordinators.watch(lambda: proxy.needed)),
        ]
        stack.push_async_callback(_end, begun)
        click.echo(f"console: {gate.url}")
        click.echo("It acts as you: keep the address to yourself. Ctrl-C ends it.", err=True)
        if browser:
            stack.enter_context(_opened(gate.url))
        await stop.wait()


async def _learn(coordinators: Coordinators, find_addresses: FindAddresses) -> None:
    while True:
        found: list[str] = []
        try:
            found = await asyncio.to_thread(find_addresses)
        except CloudlessError as error:
            logger.debug("where coordinators are could not be learned: {}", error.message)
        if found:
            coordinators.learn(found)
        await asyncio.sleep(LEARN_PERIOD_S if found else LEARN_AGAIN_S)


async def _renew(calls: HttpCalls, find_tls: FindTls) -> None:
    while True:
        await asyncio.sleep(RENEW_PERIOD_S)
        try:
            calls.renew(await asyncio.to_thread(find_tls))
        except CloudlessError as error:
            logger.warning("the certificate could not be renewed: {}", error.message)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _opened(url: str) -> Iterator[None]:
    """Open the page by a file that only this user can read: others see the command line of a browser."""
    with tempfile.TemporaryDirectory(prefix="cloudless-console-") as directory:
        page = Path(directory) / "open.html"
        page.touch(mode=0o600)
        page.write_text(
            f'<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0;url={escape(url, quote=True)}"><title>cloudless</title>\n',
            encoding="utf-8",
        )
        webbrowser.open(page.as_uri())
        yield
