"""Read what a task is sure to get (requests) and what it may not exceed (limits)."""

from __future__ import annotations

from dataclasses import replace

from cloudless.core.fields import Fields
from cloudless.core.model import Limits, Resources
from cloudless.core.quantity import format_cpu, format_mb, parse_cpu_millicores, parse_memory_mb, parse_storage_mb

PIDS_MAX = 4_194_304


def read_limits(fields: Fields) -> Limits:
    """Return the limits of `resources.limits`."""
    base = Limits()
    made = Limits(
        cpu_millicores=fields.parsed("cpu", base.cpu_millicores, parse_cpu_millicores),
        memory_mb=fields.parsed("memory", base.memory_mb, parse_memory_mb),
        pids=fields.whole("pids", base.pids, least=0, most=PIDS_MAX),
    )
    fields.finish()
    return made


def read_requests(fields: Fields, base: Resources, limits: Limits) -> Resources:
    """Return the amounts of `resources.requests`; one that is left out is no more than its limit."""
    made = replace(
        base,
        cpu_millicores=fields.parsed("cpu", _at_most(base.cpu_millicores, limits.cpu_millicores), parse_cpu_millicores),
        memory_mb=fields.parsed("memory", _at_most(base.memory_mb, limits.memory_mb), parse_memory_mb),
        storage_mb=fields.parsed("storage", base.storage_mb, parse_storage_mb),
        bandwidth_mbps=fields.whole("bandwidth", base.bandwidth_mbps, least=0, most=1_000_000),
        gpus=fields.whole("gpu", base.gpus, least=0, most=64),
    )
    fields.finish()
    if limits.cpu_millicores and made.cpu_millicores > limits.cpu_millicores:
        fields.problems.add(fields.at("cpu"), f"must be at most the limit of {format_cpu(limits.cpu_millicores)}")
    if limits.memory_mb and made.memory_mb > limits.memory_mb:
        fields.problems.add(fields.at("memory"), f"must be at most the limit of {format_mb(limits.memory_mb)}")
    return made


def _at_most(default: int, limit: int) -> int:
    return min(default, limit) if limit else default
