"""Decide what is to be looked at, and look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudless.cli.doctor.coordinators import gather_cluster
from cloudless.cli.doctor.host import find_addresses_to_join, gather_datadir, gather_host
from cloudless.core.diagnosis import Facts
from cloudless.ports import Credentials


@dataclass(frozen=True, slots=True)
class Examined:
    """The facts, and in words what they were taken from."""

    facts: Facts
    looked_at: tuple[str, ...]


def examine(
    coordinators: tuple[str, ...],
    timeout_s: float,
    environ: Mapping[str, str],
    data_dir: Path | None = None,
    preflight: str = "",
    *,
    named: bool = True,
    credentials: Credentials | None = None,
) -> Examined:
    """Return the facts asked for: the cluster and this host; a data directory; or this host for a new node.

    `named`: the coordinators' addresses were given, not the defaults. Without that nobody is asked beside a data
    directory, and for a preflight those that the new node would ask.
    """
    cluster = None
    if preflight and not named:
        coordinators = find_addresses_to_join(preflight, environ)
        named = bool(coordinators)
    if not (data_dir or preflight) or named:
        cluster = gather_cluster(coordinators, timeout_s, credentials, named=named)
    datadir = gather_datadir(data_dir, environ) if data_dir else None
    host = gather_host(preflight, environ) if preflight or not data_dir else None
    looked_at = []
    if cluster:
        looked_at.append(f"{len(cluster.answering)} of {len(cluster.coordinators)} coordinators")
    if datadir:
        looked_at.append(datadir.path)
    if host:
        looked_at.append(f"this host for a new {preflight}" if preflight else "this host")
    return Examined(Facts(cluster=cluster, host=host, datadir=datadir), tuple(looked_at))
