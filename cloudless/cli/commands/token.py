"""`token …`: what lets coordinators, agents and people in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, Options, current
from cloudless.cli.spans import Span

if TYPE_CHECKING:
    from cloudless.rpc.v1.identity_pb2 import CreateTokenResponse

ROLES = ("agent", "coordinator", "viewer", "operator", "admin")


@click.group(cls=LazyGroup)
def token() -> None:
    """Join tokens: each lets so many in, as one role, for a while."""


@token.command("create", cls=Command)
@click.option("--role", type=click.Choice(ROLES), default="agent", show_default=True, help="What it lets in.")
@click.option("--ttl", type=Span(), default="1h", show_default=True, metavar="SPAN", help="How long: 30m, 24h, 7d.")
@click.option("--uses", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="How many it lets in.")
@click.option(
    "--name", "names", multiple=True, metavar="ID|PREFIX*", help="Only these ids. Naming one in full lets it in anew."
)
@click.option("--bind", "namespaces", multiple=True, metavar="NAMESPACE", help="Bind a viewer or operator to it.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
def create(
    role: str, ttl: int, uses: int, names: tuple[str, ...], namespaces: tuple[str, ...], description: str,
    request_id: str,
) -> None:  # fmt: skip
    """Create a token and print it, this once: the cluster keeps only a hash of it."""
    from cloudless.cli.methods import CREATE_TOKEN
    from cloudless.rpc.v1.common_pb2 import WriteOptions
    from cloudless.rpc.v1.identity_pb2 import CreateTokenRequest
    from cloudless.rpc.v1.objects_pb2 import Role

    options = current()
    request = CreateTokenRequest(
        options=WriteOptions(request_id=request_id),
        role=Role.Value(f"ROLE_{role.upper()}"),
        ttl_s=ttl,
        uses=uses,
        names=names,
        namespaces=namespaces,
        description=description,
    )
    with options.client() as client:
        _show(options, client.call(CREATE_TOKEN, request), role)


def _show(options: Options, answer: CreateTokenResponse, role: str) -> None:
    """Print the token alone on stdout, for scripts; what to do with it on stderr, for people."""
    from cloudless.cli.output import show_plain
    from cloudless.cli.plain import to_plain

    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    click.echo(answer.token)
    coordinators, chosen = ",".join(options.addresses()), options.chosen_context()
    enrol = ",".join(chosen.enrol) if chosen and chosen.enrol else "HOST:8070"
    joining = f"CLOUDLESS_ENROL_AT={enrol} CLOUDLESS_JOIN_TOKEN=…"
    match role:
        case "agent":
            how = f"CLOUDLESS_COORDINATOR_ADDR={coordinators} {joining} cloudless agent run"
        case "coordinator":
            how = f"CLOUDLESS_RAFT_JOIN_ADDR={coordinators} {joining} cloudless coordinator run"
        case _:
            how = f"cloudless login --coordinator {coordinators} --enrol {enrol}"
    click.echo(f"use it on the machine that joins: {how}", err=True)


@token.command("list", cls=Command)
@click.option("--all", "-a", "everything", is_flag=True, help="Also those that let nobody in any more.")
def list_tokens(everything: bool) -> None:
    """List tokens, never their secrets."""
    from cloudless.cli.methods import LIST_TOKENS
    from cloudless.cli.output import show_list
    from cloudless.cli.trust_views import TOKENS
    from cloudless.rpc.v1.identity_pb2 import ListTokensRequest

    options = current()
    with options.client() as client:
        answer = client.call(LIST_TOKENS, ListTokensRequest(read=options.read(), all=everything))
    show_list(options, TOKENS, answer.tokens, empty="no tokens: `cloudless token create`")


@token.command("revoke", cls=Command)
@click.argument("ids", nargs=-1, required=True)
def revoke(ids: tuple[str, ...]) -> None:
    """Make tokens useless at once. Whoever they have let in stays: see `identity revoke`.

    IDS are as `token list` shows them; a whole token will do too.
    """
    from cloudless.cli.methods import REVOKE_TOKEN
    from cloudless.core.identity.tokens import find_token
    from cloudless.rpc.v1.identity_pb2 import RevokeTokenRequest

    with current().client() as client:
        for text in ids:
            whole = find_token(text)
            token_id = whole.id if whole is not None else text
            client.call(REVOKE_TOKEN, RevokeTokenRequest(id=token_id))
            click.echo(f"token/{token_id} revoked")
