"""`cluster found`: what coordinators that begin a cluster together are given, made before there is one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

import click

from cloudless.cli.options import Command
from cloudless.cli.spans import Span
from cloudless.errors import AlreadyExists, InvalidSpec, Problem

LEAF_LIFETIME_S = 86_400


@click.command("found", cls=Command)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("cloudless.founding"), show_default=True,
    help="The file to write; readable to you only.",
)  # fmt: skip
@click.option(
    "--leaf-lifetime", type=Span(), default="24h", show_default=True, metavar="SPAN",
    help="How long certificates are good for, 60s to 90d; renewed at half of it.",
)  # fmt: skip
def found(out: Path, leaf_lifetime: int) -> None:
    """Make the founding file of a new cluster: its authorities and the key that opens them.

    Copy it to every coordinator that founds (CLOUDLESS_BOOTSTRAP_EXPECT) and name it in CLOUDLESS_FOUNDING_FILE.
    Whoever has it can become anybody in the cluster: delete it once all founders have started.
    """
    write_founding_file(out, leaf_lifetime)
    click.echo(f"{out} written; delete it everywhere once all founders have started")


def write_founding_file(out: Path, leaf_lifetime_s: int = LEAF_LIFETIME_S) -> None:
    """Write a new cluster's founding file. Raises AlreadyExists, InvalidSpec for certificates too short or too long."""
    from cloudless.adapters.pki.authority import LEAF_LIFETIME_MAX_S, LEAF_LIFETIME_MIN_S
    from cloudless.adapters.pki.vault import found as make_holdings
    from cloudless.adapters.pki.vault import to_founding_file

    if not LEAF_LIFETIME_MIN_S <= leaf_lifetime_s <= LEAF_LIFETIME_MAX_S:
        raise InvalidSpec([Problem("--leaf-lifetime", f"must be from {LEAF_LIFETIME_MIN_S} s to 90 days")])
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise AlreadyExists(f"{out} exists already", hint="another --out, or delete it") from error
    with open(descriptor, "wb") as file:
        file.write(
            to_founding_file(make_holdings(uuid4().hex, time.time_ns() // 1_000_000, leaf_lifetime_s=leaf_lifetime_s))
        )
        file.flush()
        os.fsync(file.fileno())
