"""`cluster doctor`: what is wrong with a cluster, a data directory or a host, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import click

from cloudless.cli.options import Command, current

SICK = 1


@click.command("doctor", cls=Command)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="DIR",
    help="Look at this coordinator's directory on this host; needs no cluster. Coordinators only if named with -c.",
)  # fmt: skip
@click.option(
    "--preflight", type=click.Choice(["coordinator", "agent"]),
    help="Could that run on this host, with the CLOUDLESS_ settings of this environment?",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Warnings count as trouble.")
def doctor(data_dir: Path | None, preflight: str | None, strict: bool) -> None:
    """Say in plain words what is wrong, what shows it, and the cure. Works on a sick cluster too.

    Asks every coordinator it can reach and looks at this host; with --data-dir at a coordinator's directory, whether or
    not anything runs. Changes nothing. Exits with 1 if there is trouble.
    """
    import os

    from cloudless.cli.doctor.examine import examine
    from cloudless.cli.doctor.show import show_findings
    from cloudless.core.diagnosis import Severity, diagnose, is_sick

    options = current()
    named = options.coordinators_given or options.find_context() is not None
    alone = bool(data_dir) and not named
    examined = examine(
        () if alone else options.addresses(),
        options.timeout_s,
        os.environ,
        data_dir,
        preflight or "",
        named=named,
        credentials=None if alone else options.credentials(),
    )
    findings = diagnose(examined.facts)
    show_findings(options, findings, examined.looked_at)
    if is_sick(findings) or (strict and any(finding.severity is Severity.WARNING for finding in findings)):
        click.get_current_context().exit(SICK)
