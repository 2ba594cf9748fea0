"""`login`: become somebody in a cluster, and make it the one that commands are for."""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path
from typing import IO

import click

from cloudless.cli.contexts import Context, contexts_file, read_contexts, write_contexts
from cloudless.cli.options import Command, current
from cloudless.errors import BadCredentials, InvalidSpec, Problem


@click.command("login", cls=Command)
@click.option(
    "--enrol", "enrol_at", required=True, metavar="HOST:PORT,…", help="Where the cluster enrols (CLOUDLESS_ENROL_ADDR)."
)
@click.option("--token-file", type=click.File("r"), help="Read the token from a file; `-` is standard input.")
@click.option(
    "--local",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="On a coordinator's host: its identity directory. Makes you an admin without a token.",
)
@click.option("--name", default="", help="Who you are to be. Default: your login name")
@click.option("--as", "context_name", default="default", show_default=True, help="The context to keep it in.")
def login(enrol_at: str, token_file: IO[str] | None, local: Path | None, name: str, context_name: str) -> None:
    """Exchange a token for an identity of your own. The token is asked for, unless --token-file or --local is given.

    `cloudless token create --role admin` (or operator, viewer) makes tokens. They are not taken as arguments, for those
    are seen by everybody on this machine.
    """
    from cloudless.adapters.pki.identity_dir import IdentityDir
    from cloudless.cli.identity import create_first_token, log_in

    name = name or re.sub(r"[^a-z0-9.-]", "-", getpass.getuser().lower()).strip("-.")
    file = contexts_file(os.environ)
    directory = file.parent / "identities" / context_name
    context = Context(current().addresses(), directory, tuple(p.strip() for p in enrol_at.split(",") if p.strip()))
    if local is not None:
        coordinator = IdentityDir(local).load()
        if coordinator is None:
            raise BadCredentials(f"there is no identity in {local}", hint="it is `identity` in the data directory")
        token = create_first_token(context, coordinator, name)
    else:
        token = (token_file.read() if token_file else _ask()).strip()
    log_in(context, directory, token, name)
    write_contexts(file, read_contexts(file).with_context(context_name, context, use=True))
    click.echo(f"you are {name} in context {context_name}")


def _ask() -> str:
    if not sys.stdin.isatty():
        raise InvalidSpec([Problem("--token-file", "must be given where nobody can be asked for the token")])
    return str(click.prompt("Token", hide_input=True))
