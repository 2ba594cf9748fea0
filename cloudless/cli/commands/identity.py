"""`identity …`: who was let in, and locking out."""

from __future__ import annotations

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current

KINDS = ("coordinator", "agent", "person")


@click.group(cls=LazyGroup)
def identity() -> None:
    """Everyone who was let in: coordinators, agents and people."""


@identity.command("list", cls=Command)
@click.option("--kind", type=click.Choice(KINDS), help="Only these.")
def list_identities(kind: str | None) -> None:
    """List who was let in, as what, and by which token."""
    from cloudless.cli.methods import LIST_IDENTITIES
    from cloudless.cli.output import show_list
    from cloudless.cli.trust_views import IDENTITIES
    from cloudless.rpc.v1.identity_pb2 import ListIdentitiesRequest

    options = current()
    with options.client() as client:
        answer = client.call(LIST_IDENTITIES, ListIdentitiesRequest(read=options.read(), kind=kind or ""))
    show_list(options, IDENTITIES, answer.identities, empty="nobody was let in yet: `cloudless token create`")


@identity.command("revoke", cls=Command)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("names", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="Told to whoever asks, the one locked out included.")
def revoke(kind: str, names: tuple[str, ...], reason: str) -> None:
    """Lock somebody out at once, whatever certificate it holds.

    A coordinator has held the CA keys: after it was taken over, also replace them (`cloudless ca rotate`).
    """
    from cloudless.cli.methods import REVOKE_IDENTITY
    from cloudless.rpc.v1.identity_pb2 import RevokeIdentityRequest

    with current().client() as client:
        for name in names:
            client.call(REVOKE_IDENTITY, RevokeIdentityRequest(kind=kind, name=name, reason=reason))
            click.echo(f"{kind}/{name} revoked")
