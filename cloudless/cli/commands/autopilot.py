"""`cluster autopilot get|set`: how the leader cares for the members, and what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, Options, current

if TYPE_CHECKING:
    from cloudless.rpc.v1.cluster_pb2 import GetAutopilotResponse
    from cloudless.rpc.v1.objects_pb2 import AutopilotRecord


@click.group(cls=LazyGroup, aliases={"status": "get", "edit": "set"})
def autopilot() -> None:
    """How the leader cares for the members: joins, promotion, dead voters."""


@autopilot.command("get", cls=Command)
def get() -> None:
    """Show the settings, what the autopilot did last and waits for, and the health of every member."""
    from cloudless.cli.methods import GET_AUTOPILOT
    from cloudless.cli.output import show_list, show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.cli.views import JOINERS, MEMBERS
    from cloudless.rpc.v1.cluster_pb2 import GetAutopilotRequest

    options = current()
    with options.client() as client:
        answer = client.call(GET_AUTOPILOT, GetAutopilotRequest(read=options.read()))
    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    if options.output != "name":
        _show_settings(options, answer.settings)
        click.echo()
        _show_status(options, answer)
        click.echo()
    show_list(options, MEMBERS, sorted(answer.members, key=lambda m: m.name))
    if answer.joiners and options.output != "name":
        click.echo()
        show_list(options, JOINERS, answer.joiners)


@autopilot.command("set", cls=Command)
@click.option("--cleanup/--no-cleanup", default=None, help="Remove dead voters when it is safe and helps.")
@click.option("--dead-after", type=float, metavar="SECONDS", help="Silence that makes a voter dead. Default: 300")
@click.option("--stabilization", type=float, metavar="SECONDS", help="Quiet time before a dead voter goes. Default: 10")
@click.option("--min-quorum", type=int, metavar="N", help="Never fewer voters than this by itself. Default: 3")
@click.option(
    "--learner-stall", type=float, metavar="SECONDS", help="Without headway a learner gives way. Default: 120"
)
@click.option("--catch-up-lag", type=int, metavar="N", help="Raft entries a learner may lag to vote. Default: 1000")
@click.option("--catch-up-stable", type=float, metavar="SECONDS", help="For so long before it votes. Default: 1")
@click.option("--voters-max", type=int, metavar="N", help="Never more voters, at most 7. Default: 7")
@click.option("--even-voters/--odd-voters", default=None, help="Fill up to an even number of voters, too.")
@click.option("--defaults", is_flag=True, help="Begin from the defaults instead of from what is set.")
@click.option("--if-revision", default=0, metavar="N", help="Only if the settings are still at revision N.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
def set_(if_revision: int, request_id: str, defaults: bool, **given: Any) -> None:
    """Change settings; what is not given stays as it is."""
    from cloudless.cli.methods import SET_AUTOPILOT
    from cloudless.rpc.v1.cluster_pb2 import SetAutopilotRequest
    from cloudless.rpc.v1.common_pb2 import WriteOptions

    fields = {
        "cleanup": "cleanup_dead_voters",
        "dead_after": "dead_after_s",
        "stabilization": "stabilization_s",
        "min_quorum": "min_quorum",
        "learner_stall": "learner_stall_s",
        "catch_up_lag": "catch_up_lag_max",
        "catch_up_stable": "catch_up_stable_s",
        "voters_max": "voters_max",
        "even_voters": "even_voters",
    }
    changes: dict[str, Any] = {fields[name]: value for name, value in given.items() if value is not None}
    if not changes and not defaults:
        raise click.UsageError("nothing to change; `cloudless cluster autopilot set --help` lists what there is")
    write = WriteOptions(request_id=request_id, if_revision=if_revision)
    options = current()
    with options.client() as client:
        answer = client.call(SET_AUTOPILOT, SetAutopilotRequest(options=write, defaults=defaults, **changes))
    if options.output in ("json", "yaml"):
        from cloudless.cli.output import show_plain
        from cloudless.cli.plain import to_plain

        return show_plain(options, to_plain(answer))
    _show_settings(options, answer.settings)


def _show_settings(options: Options, settings: AutopilotRecord) -> None:
    from cloudless.cli.output import show_fields

    even = "any" if settings.even_voters else "odd numbers; one too many stands by as a learner"
    cleanup = f"removed after {settings.dead_after_s:g} s dead and {settings.stabilization_s:g} s without a change"
    show_fields(
        options,
        [
            ("dead voters", cleanup if settings.cleanup_dead_voters else "kept (cleanup is off)"),
            ("voters", f"at least {settings.min_quorum}, at most {settings.voters_max}; {even}"),
            (
                "learners",
                f"vote after {settings.catch_up_stable_s:g} s within {settings.catch_up_lag_max} entries; "
                f"give way after {settings.learner_stall_s:g} s without headway",
            ),
        ],
    )


def _show_status(options: Options, answer: GetAutopilotResponse) -> None:
    from cloudless.cli.ages import format_age
    from cloudless.cli.output import show_fields
    from cloudless.cli.views import now_ms

    status = answer.status
    waits = [f"{wait.subject} {wait.reason}" for wait in status.waits]
    given_up = [f"{r.record.id} for {r.record.new_id or 'the next that joins'}: {r.step}" for r in answer.replacements]
    show_fields(
        options,
        [
            ("last step", status.doing or "none yet"),
            ("waits for", "\n".join(waits) or "nothing"),
            ("replacing", "\n".join(given_up)),
            ("since", f"{format_age(status.since_ms, now_ms())} ago" if status.since_ms else ""),
        ],
    )
