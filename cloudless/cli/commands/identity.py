"""`identity …`: who was let in, and locking out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.cli.client import Client

KINDS = ("coordinator", "agent", "person")
KEY_TIMEOUT_S = 180.0


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
@click.option("--rotate", is_flag=True, help="For coordinators: also take all that they had out of use.")
@click.option("--force", is_flag=True, help="With --rotate: remove the members even if links to others are down.")
@click.option("--yes", "-y", is_flag=True, help="With --rotate: do not ask.")
def revoke(kind: str, names: tuple[str, ...], reason: str, rotate: bool, force: bool, yes: bool) -> None:
    """Lock somebody out at once, whatever certificate it holds. The tokens that it made let nobody in any more.

    A coordinator has held the cluster key and by it those of the CAs. For one that was taken over use --rotate: its
    etcd member is removed, the cluster key is replaced, then the replacement of all CAs begins. Each step may be
    repeated: say it again if it was interrupted.
    """
    from cloudless.cli.methods import REVOKE_IDENTITY
    from cloudless.rpc.v1.identity_pb2 import RevokeIdentityRequest

    if rotate and kind != "coordinator":
        raise click.UsageError("--rotate is for coordinators: nobody else has held the cluster key")
    if rotate and not yes:
        click.confirm(f"Remove {', '.join(names)} from the cluster for good, and replace its key and CAs?", abort=True)
    with _client_of_others(names) if kind == "coordinator" else current().client() as client:
        for name in names:
            client.call(REVOKE_IDENTITY, RevokeIdentityRequest(kind=kind, name=name, reason=reason))
            click.echo(f"{kind}/{name} revoked")
        if rotate:
            _take_out_of_use(client, names, force)


def _client_of_others(names: tuple[str, ...]) -> Client:
    """Return a client of the coordinators that are not named: these are not the ones to ask, nor to believe."""
    from cloudless.cli.client import Client
    from cloudless.cli.methods import GET_STATUS
    from cloudless.errors import Unavailable
    from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest

    options = current()
    with options.client() as client:
        found = client.call(GET_STATUS, GetStatusRequest()).coordinators
    others = tuple(one.record.api_address for one in found if one.record.id not in names and one.record.api_address)
    if not others:
        raise Unavailable(
            f"no coordinator but {', '.join(names)} is running", hint="start another one, or name it: --coordinator"
        )
    return Client(others, options.timeout_s, options.credentials())


def _take_out_of_use(client: Client, names: tuple[str, ...], force: bool) -> None:
    """Remove the members first: one that still has a member sees what is written, and writes what it likes."""
    from cloudless.cli.cluster_key import describe, rotate_cluster_key
    from cloudless.cli.methods import REMOVE_MEMBER, ROTATE_CA
    from cloudless.errors import Conflict, NotFound
    from cloudless.rpc.v1.cluster_pb2 import RemoveMemberRequest
    from cloudless.rpc.v1.identity_pb2 import RotateCaRequest

    for name in names:
        try:
            client.call(REMOVE_MEMBER, RemoveMemberRequest(coordinator_id=name, force=force))
            click.echo(f"coordinator/{name} removed")
        except NotFound:
            click.echo(f"coordinator/{name} has no member")
    click.echo(f"cluster key: {describe(rotate_cluster_key(client, KEY_TIMEOUT_S))}")
    try:
        client.call(ROTATE_CA, RotateCaRequest())
        click.echo("CAs: new ones are made known to everybody")
    except Conflict as error:
        click.echo(f"CAs: {error.message}")
    click.echo("\nWhat is left (docs/security.md):")
    click.echo("  cloudless identity list                                  nobody there whom you did not let in?")
    click.echo("  cloudless ca rotate --hurry etcd-peers etcd-clients      twice, a minute apart: etcd is safe then")
    click.echo("  cloudless ca rotate --hurry cluster                      twice, when agents have renewed")
