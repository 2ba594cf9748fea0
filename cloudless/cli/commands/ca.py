"""`ca …`: the certificate authorities, the cluster key that seals theirs, and the replacement of either."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current
from cloudless.cli.spans import Span

if TYPE_CHECKING:
    from cloudless.rpc.v1.identity_pb2 import Authority

PURPOSES = ("cluster", "etcd-peers", "etcd-clients")


@click.group(cls=LazyGroup)
def ca() -> None:
    """The certificate authorities: one each for the cluster, etcd's members and etcd's clients."""


@ca.command("status", cls=Command)
def status() -> None:
    """Show the authorities, their pins, and what is being replaced."""
    from cloudless.cli.methods import GET_CA
    from cloudless.rpc.v1.identity_pb2 import GetCaRequest

    with current().client() as client:
        _show(client.call(GET_CA, GetCaRequest()).authorities)


@ca.command("rotate", cls=Command)
@click.argument("purposes", nargs=-1, type=click.Choice(PURPOSES))
@click.option(
    "--hurry", is_flag=True, help="Take the next step now. Nodes that have not heard of the new CA must re-enrol."
)
@click.option(
    "--leaf-lifetime", type=Span(), metavar="SPAN", help="For certificates of the new CAs. Default: as before."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rotate(purposes: tuple[str, ...], hurry: bool, leaf_lifetime: int | None, yes: bool) -> None:
    """Replace PURPOSES, or all three, while everything runs.

    The new CA is made known, then signs, and the old one goes when nothing it signed is valid any more: two lifetimes
    of a certificate in all. Tokens made before name the old CA and stop working when the new one signs.
    """
    from cloudless.cli.methods import ROTATE_CA
    from cloudless.rpc.v1.identity_pb2 import RotateCaRequest
    from cloudless.rpc.v1.objects_pb2 import AuthorityPurpose

    if hurry and not yes:
        click.confirm("nodes that have not renewed since the new CA was made will be locked out; go on?", abort=True)
    wanted = [AuthorityPurpose.Value(f"AUTHORITY_PURPOSE_{name.upper().replace('-', '_')}") for name in purposes]
    request = RotateCaRequest(purposes=wanted, hurry=hurry, leaf_lifetime_s=leaf_lifetime or 0)
    with current().client() as client:
        _show(client.call(ROTATE_CA, request).authorities)


@ca.command("key", cls=Command)
def key() -> None:
    """Show the name of the cluster key, how far its replacement is, and who has yet to fetch the new one."""
    from cloudless.cli.cluster_key import describe
    from cloudless.cli.methods import GET_CLUSTER_KEY
    from cloudless.cli.output import show_fields, show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.rpc.v1.identity_pb2 import GetClusterKeyRequest

    options = current()
    with options.client() as client:
        answer = client.call(GET_CLUSTER_KEY, GetClusterKeyRequest(read=options.read()))
    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    in_use = answer.in_use or "none: without TLS there is no key"
    show_fields(options, [("in use", in_use), ("state", describe(answer))])


@ca.command("rotate-key", cls=Command)
@click.option("--no-wait", is_flag=True, help="Return at once; the cluster goes on by itself.")
@click.option("--wait-timeout", default=180.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
def rotate_key(no_wait: bool, wait_timeout: float, request_id: str) -> None:
    """Replace the cluster key, which seals the CAs' keys in the state, while everything runs.

    For when somebody else has it: a coordinator that was taken over, a lost data directory. Coordinators that are not
    revoked fetch the new one from each other; who is away fetches it on its return. Then replace the CAs too, for
    whoever had the old key may have had theirs. `cloudless identity revoke coordinator ID --rotate` does all of it.
    """
    from cloudless.cli.cluster_key import describe, rotate_cluster_key

    with current().client() as client:
        answer = rotate_cluster_key(client, 0.0 if no_wait else wait_timeout, request_id)
    click.echo(f"cluster key: {describe(answer)}")


def _show(authorities: Iterable[Authority]) -> None:
    from cloudless.cli.output import show_list
    from cloudless.cli.trust_views import AUTHORITIES

    show_list(current(), AUTHORITIES, authorities, empty="there is no certificate authority yet")
