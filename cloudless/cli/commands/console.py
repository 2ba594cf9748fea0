"""`console`: the web console on this machine, as the person, through whichever coordinator answers."""

from __future__ import annotations

import asyncio
import ssl

import click

from cloudless.cli.options import Command, Options, current


@click.command(cls=Command)
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="A loopback address; port 0: any."
)
@click.option("--browser/--no-browser", default=True, help="Open the page. Default: yes.")
@click.option(
    "--http",
    "http_addresses",
    multiple=True,
    metavar="HOST:PORT",
    help="HTTP addresses of coordinators, where the ones they tell cannot be reached from here.",
)
def console(listen: str, browser: bool, http_addresses: tuple[str, ...]) -> None:
    """Show the cluster in a browser, and act on it there as yourself.

    The page comes from this command, which hands its calls on to any coordinator that answers, under your certificate.
    It listens on loopback only, and answers only whoever has the address that it prints.
    """
    from cloudless.cli.console.serving import check_loopback, serve

    options = current()
    address = check_loopback(listen)
    asyncio.run(
        serve(
            address,
            lambda: list(http_addresses) or _find_addresses(options),
            lambda: _find_tls(options),
            browser=browser,
        )
    )


def _find_addresses(options: Options) -> list[str]:
    """Return where the coordinators that are up serve HTTP, as they say themselves."""
    from cloudless.cli.methods import GET_STATUS
    from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest

    with options.client() as client:
        status = client.call(GET_STATUS, GetStatusRequest())
    return [one.record.http_address for one in status.coordinators if one.record.http_address]


def _find_tls(options: Options) -> ssl.SSLContext | None:
    """Return what the person shows to coordinators over HTTP, renewed if that is due; None without an identity."""
    from cloudless.adapters.pki.identity_dir import IdentityDir
    from cloudless.cli.contexts import ContextFile

    context = options.find_context()
    if context is None or options.credentials() is None:
        return None
    directory = IdentityDir(ContextFile().identity_path(context.name))
    made = ssl.create_default_context(cafile=str(directory.roots_file))
    made.load_cert_chain(directory.identity_file)
    return made
