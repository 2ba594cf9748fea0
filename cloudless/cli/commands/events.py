"""`events`: what happened, for people; `--follow` goes on across the deaths of coordinators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cloudless.cli.options import Command, Options, current

if TYPE_CHECKING:
    from cloudless.cli.client import Client
    from cloudless.rpc.v1.event_pb2 import ListEventsResponse
    from cloudless.rpc.v1.objects_pb2 import EventRecord


@click.command(cls=Command)
@click.option("--follow", "-f", "--watch", is_flag=True, help="Go on with new events until interrupted.")
@click.option("--subject", default="", metavar="KIND/NAME", help="Only of this subject, such as node/agent-1.")
@click.option("--limit", default=50, show_default=True, help="Newest so many to begin with.")
def events(follow: bool, subject: str, limit: int) -> None:
    """Show what happened, newest last."""
    from cloudless.cli.output import show_list
    from cloudless.cli.views import EVENTS

    options = current()
    with options.client() as client:
        listed = _list(client, options, subject, limit)
        if not follow:
            return show_list(options, EVENTS, listed.events)
        for event in _endless(client, options, subject, limit, listed):
            _print_line(options, event)


def _list(client: Client, options: Options, subject: str, limit: int) -> ListEventsResponse:
    from cloudless.cli.methods import LIST_EVENTS
    from cloudless.rpc.v1.event_pb2 import ListEventsRequest

    return client.call(LIST_EVENTS, ListEventsRequest(read=options.read(), subject=subject, limit=limit))


def _endless(
    client: Client, options: Options, subject: str, limit: int, listed: ListEventsResponse
) -> Iterator[EventRecord]:
    """Yield the listed events, then each new one once; when history is gone, list afresh and go on from there."""
    from cloudless.cli.watch import follow
    from cloudless.errors import HistoryGone

    seen: set[str] = set()
    while True:
        yield from (event for event in listed.events if event.id not in seen)
        seen = {event.id for event in listed.events}
        try:
            for answer in follow(client, listed.header.revision + 1, ("event",)):
                for change in answer.changes:
                    event = change.record.event
                    if change.deleted or (subject and event.subject != subject):
                        continue
                    seen.add(event.id)
                    yield event
        except HistoryGone:
            listed = _list(client, options, subject, max(limit, 1000))


def _print_line(options: Options, event: EventRecord) -> None:
    import time

    from cloudless.cli.plain import to_plain
    from cloudless.cli.views import severity

    if options.output == "json":
        # One object per line: an endless list cannot be closed.
        click.echo(json.dumps(to_plain(event), ensure_ascii=False))
    elif options.output == "yaml":
        import yaml

        click.echo("---\n" + yaml.safe_dump(to_plain(event), sort_keys=False), nl=False)
    elif options.output == "name":
        click.echo(f"event/{event.id}")
    else:
        at = time.strftime("%H:%M:%S", time.localtime(event.at_ms / 1000))
        click.echo(f"{at}  {severity(event):<7}  {event.kind:<20}  {event.subject:<28}  {event.message}")
