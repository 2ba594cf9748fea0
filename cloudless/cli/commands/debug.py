"""`cluster debug`: a bundle for whoever helps, without secrets."""

from __future__ import annotations

from pathlib import Path

import click

from cloudless.cli.options import Command, current


@click.command("debug", cls=Command)
@click.option(
    "--to", "target", type=click.Path(path_type=Path), default=None, metavar="FILE",
    help="Where to write it. Default: cloudless-debug-DATE.tar.gz here.",
)  # fmt: skip
@click.option(
    "--data-dir", type=click.Path(path_type=Path, exists=True), metavar="DIR",
    help="With the ends of the logs in this coordinator's directory; coordinators only if named with -c.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what it would hold.")
def debug(target: Path | None, data_dir: Path | None, dry_run: bool) -> None:
    """Write status, members, digests, events, metrics, settings, findings and logs' ends into one archive.

    Says what it holds before it writes. Tokens, keys and whatever else looks secret are redacted; values of workloads
    and the store itself are not in it. At most 16 MiB before it is packed.
    """
    import os
    import time

    from cloudless.cli.doctor.bundle import collect, describe
    from cloudless.cli.doctor.examine import examine
    from cloudless.errors import StartupError

    options = current()
    named = options.coordinators_given or options.find_context() is not None
    alone = bool(data_dir) and not named
    credentials = None if alone else options.credentials()
    addresses = () if alone else options.addresses()
    examined = examine(addresses, options.timeout_s, os.environ, data_dir, named=named, credentials=credentials)
    bundle = collect(examined, os.environ, data_dir, options.timeout_s, credentials)
    click.echo(describe(bundle), err=True)
    if dry_run:
        return
    path = target or Path(time.strftime("cloudless-debug-%Y%m%d-%H%M%S.tar.gz"))
    try:
        bundle.write(path)
    except OSError as error:
        raise StartupError(f"cannot write {path}: {error.strerror}", hint="name another file with --to") from error
    click.echo(str(path))
