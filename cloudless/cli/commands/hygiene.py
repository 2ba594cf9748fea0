"""`cluster hygiene`: how full the store is, and making room in it now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.core.diagnosis import CoordinatorFacts

SHORT = 1


@click.group("hygiene", cls=LazyGroup)
def hygiene() -> None:
    """The room in the store: show it, make more. The leader does this by itself when it pays."""


@hygiene.command("status", cls=Command)
def status() -> None:
    """Show each member's file, what is in use, its quota, and what hygiene did last."""
    from cloudless.cli.doctor.coordinators import gather_cluster
    from cloudless.cli.output import Column, Listing, show_list
    from cloudless.core.diagnosis.amounts import size
    from cloudless.errors import Unavailable

    def cell(one: CoordinatorFacts, field: str) -> str:
        return size(getattr(one.store, field)) if one.store else "-"

    options = current()
    found = gather_cluster(options.addresses(), options.timeout_s, options.credentials())
    if not found.answering:
        raise Unavailable("no coordinator answers", hint="`cloudless cluster doctor` says more")
    listing: Listing[CoordinatorFacts] = Listing(
        "coordinator",
        lambda one: one.id,
        (
            Column("COORDINATOR", lambda one: one.id),
            Column("FILE", lambda one: cell(one, "size_bytes")),
            Column("IN USE", lambda one: cell(one, "in_use_bytes")),
            Column("QUOTA", lambda one: cell(one, "quota_bytes")),
            Column("FULL IN", lambda one: f"{one.quota_hours_left:.0f} h" if one.quota_hours_left >= 0 else "-"),
            Column("ALARMS", lambda one: ", ".join(one.store.alarms) or "-" if one.store else "-"),
            Column("MESSAGE", lambda one: one.refuses_writes or one.hygiene or "-"),
        ),
        lambda one: {
            "coordinatorId": one.id,
            "sizeBytes": one.store.size_bytes if one.store else 0,
            "inUseBytes": one.store.in_use_bytes if one.store else 0,
            "quotaBytes": one.store.quota_bytes if one.store else 0,
            "quotaHoursLeft": one.quota_hours_left,
            "alarms": list(one.store.alarms) if one.store else [],
            "refusesWrites": one.refuses_writes,
            "hygiene": one.hygiene,
        },
    )
    show_list(options, listing, sorted(found.answering, key=lambda one: one.id))


@hygiene.command("run", cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would be done first.")
def run(dry_run: bool) -> None:
    """Make room now: compact, defragment one member after the other, disarm the space alarm if that cured it.

    Needs all members well, and no leader. Exits with 1 if there is still not enough room.
    """
    from cloudless.cli.methods import MAKE_ROOM
    from cloudless.cli.output import show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.rpc.v1.maintenance_pb2 import MakeRoomRequest

    options = current()
    with options.client() as client:
        answer = client.call(MAKE_ROOM, MakeRoomRequest(dry_run=dry_run), timeout_s=MAKE_ROOM.attempt_s)
    if options.output in ("json", "yaml"):
        show_plain(options, to_plain(answer))
    else:
        for step in answer.steps or ["nothing to do"]:
            click.echo(step)
    if answer.short_of:
        click.echo(f"not enough room yet: {answer.short_of}", err=True)
        click.get_current_context().exit(SHORT)
