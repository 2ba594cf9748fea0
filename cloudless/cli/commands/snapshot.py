"""`cluster snapshot …`: backups of the whole cluster, and a new cluster from one.

`save`, `list`, `fetch`, `prune` and `schedule` ask the coordinators; `inspect`, `verify` and `restore` need nothing but
the file (and, to prove and to restore, etcd on this host).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current
from cloudless.cli.secrets import key_file_option

if TYPE_CHECKING:
    from cloudless.adapters.backup.container import Header
    from cloudless.rpc.v1.backup_pb2 import StoredBackup

_STORE_TIMEOUT_S = 900.0
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=LazyGroup, aliases={"create": "save", "get": "fetch", "show": "inspect", "check": "verify"})
def snapshot() -> None:
    """Backups: one self-contained, encrypted file each, from which a new cluster can be made."""


@snapshot.command("save", cls=Command)
@click.argument("file", type=_FILE, required=False)
@key_file_option
@click.option("--unencrypted", is_flag=True, help="Write it readable for everybody who gets the file.")
@click.option("--quick", is_flag=True, help="Do not prove first that a member can be made from it.")
def save(file: Path | None, key_file: Path | None, unencrypted: bool, quick: bool) -> None:
    """Save a backup to FILE here; without FILE, where the schedule puts them.

    It is proven before it counts: a member is made from it, started, and its state compared.
    """
    if file is None:
        return _store()
    from cloudless.cli.backups import receive
    from cloudless.cli.secrets import key_to_write

    secret = key_to_write(key_file, unencrypted)
    with current().client() as client:
        size_bytes, manifest = receive(client, file, secret, prove=not quick)
    told = "encrypted" if secret else "NOT encrypted"
    click.echo(f"{file}: {_size(size_bytes)}, revision {manifest.revision}, {told}")


def _store() -> None:
    from cloudless.cli.methods import STORE_BACKUP
    from cloudless.rpc.v1.backup_pb2 import StoreBackupRequest

    with current().client() as client:
        answer = client.call(STORE_BACKUP, StoreBackupRequest(), timeout_s=_STORE_TIMEOUT_S)
    made = answer.backup
    click.echo(f"{made.name}: {_size(made.size_bytes)}, revision {made.revision}, in {made.location}")
    for name in answer.pruned:
        click.echo(f"{name}: pruned")


@snapshot.command("list", cls=Command)
def list_backups() -> None:
    """List the backups in the schedule's target, of all coordinators if it is a directory of each."""
    from cloudless.cli.backups import list_everywhere
    from cloudless.cli.output import show_list

    options = current()
    found, silent = list_everywhere(options)
    show_list(options, _listing(), found)
    for address, why in silent.items():
        click.echo(f"{address} was not asked: {why}", err=True)


def _listing() -> Any:
    from cloudless.cli.ages import format_age
    from cloudless.cli.output import Column, Listing
    from cloudless.cli.plain import to_plain
    from cloudless.cli.views import now_ms

    listing: Listing[StoredBackup] = Listing(
        kind="backup",
        name=lambda backup: backup.name,
        plain=to_plain,
        columns=[
            Column("NAME", lambda backup: backup.name),
            Column("AGE", lambda backup: format_age(backup.created_at_ms, now_ms())),
            Column("SIZE", lambda backup: _size(backup.size_bytes)),
            Column("REVISION", lambda backup: str(backup.revision)),
            Column("WHERE", lambda backup: backup.location),
        ],
    )
    return listing


@snapshot.command("fetch", cls=Command)
@click.argument("name")
@click.argument("file", type=_FILE, required=False)
def fetch(name: str, file: Path | None) -> None:
    """Copy the backup NAME from the target to FILE here, as it lies there."""
    from cloudless.cli.backups import fetch_from_any

    options = current()
    size_bytes = fetch_from_any(options, name, file or Path(name))
    click.echo(f"{file or name}: {_size(size_bytes)}")


@snapshot.command("inspect", cls=Command)
@click.argument("file", type=_FILE)
def inspect(file: Path) -> None:
    """Show what FILE says of itself. Needs no key, and proves nothing."""
    from cloudless.cli.backups import header_of
    from cloudless.cli.output import show_fields, show_plain

    options, header = current(), header_of(file)
    if options.output in ("json", "yaml"):
        return show_plain(options, {**header.manifest.to_document(), "encrypted": header.sealing.encrypted})
    show_fields(options, _fields_of(header))


def _fields_of(header: Header) -> list[tuple[str, str]]:
    from cloudless.cli.ages import format_age
    from cloudless.cli.views import now_ms

    manifest = header.manifest
    return [
        ("cluster", manifest.cluster_id),
        ("revision", f"{manifest.revision}, digest {manifest.state_digest[:12]}"),
        ("made", f"{format_age(manifest.created_at_ms, now_ms())} ago by {manifest.created_by}"),
        ("proven", "yes, when it was made" if manifest.proven else "no"),
        ("encrypted", "yes" if header.sealing.encrypted else "NO"),
        ("members", ", ".join(member.name for member in manifest.members)),
        ("parts", "\n".join(f"{part.name}: {_size(part.size_bytes)}" for part in manifest.parts)),
        ("versions", f"cloudless {manifest.cloudless_version}, etcd {manifest.etcd_version}"),
    ]


@snapshot.command("verify", cls=Command)
@click.argument("file", type=_FILE)
@key_file_option
@click.option("--quick", is_flag=True, help="Check hashes and seals only; start no etcd.")
def verify(file: Path, key_file: Path | None, quick: bool) -> None:
    """Check FILE from end to end, and prove that it restores: make a member from it, start it, compare its state."""
    import asyncio

    from cloudless.adapters.backup.container import check_file
    from cloudless.cli.backups import header_of
    from cloudless.cli.secrets import key_to_read

    secret = key_to_read(key_file, header_of(file).sealing.encrypted)
    manifest = check_file(file, secret).manifest
    if not quick:
        from cloudless.offline.proof import prove_backup
        from etcd.find import find

        asyncio.run(prove_backup(file, secret, find()))
    how = "whole" if quick else "whole, and a member made from it has the state it should have"
    click.echo(f"{file}: {how} (revision {manifest.revision})")


@snapshot.command("restore", cls=Command)
@click.argument("file", type=_FILE)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), envvar="CLOUDLESS_DATA_DIR", show_envvar=True, required=True
)
@click.option(
    "--node-id", envvar="CLOUDLESS_NODE_ID", show_envvar=True, required=True, help="Of the first coordinator."
)
@click.option(
    "--raft-address", envvar="CLOUDLESS_RAFT_ADDR", show_envvar=True, required=True, metavar="HOST:PORT",
    help="Where the others will reach its member.",
)  # fmt: skip
@click.option("--identity-dir", type=click.Path(path_type=Path), envvar="CLOUDLESS_IDENTITY_DIR", show_envvar=True)
@click.option("--tls/--no-tls", default=True, envvar="CLOUDLESS_TLS_ENABLED", show_envvar=True)
@key_file_option
@click.option("--quick", is_flag=True, help="Do not prove the backup first (its hashes are checked all the same).")
def restore(
    file: Path,
    data_dir: Path,
    node_id: str,
    raft_address: str,
    identity_dir: Path | None,
    tls: bool,
    key_file: Path | None,
    quick: bool,
) -> None:
    """Make the first coordinator of a new cluster from FILE, in an empty data directory on this host.

    Then start it, and the others with empty directories and its address in CLOUDLESS_RAFT_JOIN_ADDR.
    Run with the coordinator's own settings (CLOUDLESS_*), it needs no options.
    """
    import asyncio

    from cloudless.cli.backups import header_of, home_of
    from cloudless.cli.secrets import key_to_read
    from cloudless.offline.restore import restore_backup
    from etcd.find import find

    home = home_of(data_dir, node_id, raft_address, "https" if tls else "http", identity_dir)
    secret = key_to_read(key_file, header_of(file).sealing.encrypted)
    done = asyncio.run(restore_backup(file, secret, home, find(), prove=not quick))
    click.echo(
        f"{data_dir} holds cluster {done.manifest.cluster_id} as of revision {done.manifest.revision}; its revisions "
        f"go on from {done.revision_from}.\n\n"
        f"Next:\n  1. start {node_id} here:          cloudless coordinator run\n"
        "  2. start the other coordinators, on empty data directories, with its API address in "
        "CLOUDLESS_RAFT_JOIN_ADDR: they join.\n"
        "  3. agents find it if its address is one they know (CLOUDLESS_COORDINATOR_ADDR); their tasks run on."
    )


@snapshot.command("prune", cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(dry_run: bool) -> None:
    """Delete what the schedule's keep numbers do not keep; on each coordinator if the target is a directory of each."""
    from cloudless.cli.backups import prune_everywhere

    options = current()
    deleted, silent = prune_everywhere(options, dry_run)
    for location, names in deleted.items():
        for name in names:
            click.echo(f"{name}: {'would go' if dry_run else 'deleted'} ({location})")
    if not any(deleted.values()):
        click.echo("nothing to delete")
    for address, why in silent.items():
        click.echo(f"{address} was not asked: {why}", err=True)


@snapshot.command("schedule", cls=Command)
@click.option("--every", metavar="DURATION", help="Such as 30m, 1h or 1d.")
@click.option(
    "--target", metavar="PLACE", help="A path, s3://bucket/prefix, or `local` for each leader's data directory."
)
@click.option("--keep-last", type=click.IntRange(0), metavar="N")
@click.option("--keep-daily", type=click.IntRange(0), metavar="N")
@click.option("--keep-weekly", type=click.IntRange(0), metavar="N")
@click.option("--verify/--no-verify", default=None, help="Prove each one before it counts. Default: yes.")
@click.option("--on/--off", "enabled", default=None, help="Make backups by schedule. Default: on.")
def schedule(
    every: str | None, target: str | None, keep_last: int | None, keep_daily: int | None, keep_weekly: int | None,
    verify: bool | None, enabled: bool | None,
) -> None:  # fmt: skip
    """Show how the leader makes backups by itself, and how the last went; with options, change it first."""
    from cloudless.cli.backups import change_schedule, describe_schedule, parse_duration_s
    from cloudless.cli.methods import GET_BACKUP_SCHEDULE
    from cloudless.cli.output import show_fields, show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.rpc.v1.backup_pb2 import GetBackupScheduleRequest

    changes: dict[str, Any] = {
        "interval_s": parse_duration_s(every) if every is not None else None,
        "target": ("" if target == "local" else target),
        "keep_last": keep_last,
        "keep_daily": keep_daily,
        "keep_weekly": keep_weekly,
        "verify": verify,
        "enabled": enabled,
    }
    options = current()
    with options.client() as client:
        change_schedule(client, {name: value for name, value in changes.items() if value is not None})
        answer = client.call(GET_BACKUP_SCHEDULE, GetBackupScheduleRequest(read=options.read()))
    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    show_fields(options, describe_schedule(answer))


def _size(size_bytes: int) -> str:
    mib = size_bytes / 1024**2
    return f"{mib:.1f} MiB" if mib >= 0.1 else f"{size_bytes / 1024:.1f} KiB"
