"""`version`: this program's version, and with `--cluster` that of every coordinator."""

from __future__ import annotations

import click

from cloudless import __version__
from cloudless.cli.options import Command, current


@click.command(cls=Command)
@click.option("--cluster", is_flag=True, help="Also the versions of the coordinators that answer.")
def version(cluster: bool) -> None:
    """Print the version."""
    click.echo(f"cloudless {__version__}")
    if not cluster:
        return
    from cloudless.cli.methods import GET_STATUS
    from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest

    with current().client() as client:
        status = client.call(GET_STATUS, GetStatusRequest())
    for coordinator in status.coordinators:
        record = coordinator.record
        click.echo(f"{record.id} {record.version} (etcd {record.etcd_version})")
