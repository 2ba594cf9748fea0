"""The coordinators a person named, as addresses to call: names in DNS are looked up when they are needed, once.

Addresses and plain names are left to gRPC, as ever; `dns+` and `srv+` seeds become what DNS says now, in the order of
trying. See `cloudless.core.discovery.seeds` for how they are written.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudless.core.discovery.seeds import Seed, SeedKind, parse_dns_servers, parse_seed
from cloudless.errors import BadSettings, Problem, Unavailable

DNS_SERVER = "CLOUDLESS_DNS_SERVER"
_LOOKED_UP = (SeedKind.DNS, SeedKind.SRV)


def find_addresses(seeds: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the addresses that seeds stand for. Raises Unavailable if that is none, BadSettings for a DNS server."""
    parsed = tuple(parse_seed(seed) for seed in seeds)
    if not any(seed.kind in _LOOKED_UP for seed in parsed):
        return seeds
    return _look_up(parsed, _read_servers(environ))


def _read_servers(environ: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    text = environ.get(DNS_SERVER, "").strip()
    try:
        return parse_dns_servers(text) if text else ()
    except ValueError as error:
        raise BadSettings([Problem(DNS_SERVER, f"{error}, not {text!r}")]) from error


def _look_up(seeds: tuple[Seed, ...], servers: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    import asyncio
    import random

    from cloudless.adapters.discovery.lookup import NetworkLookup
    from cloudless.adapters.discovery.resolver import SeedResolver
    from cloudless.adapters.system import SystemClock
    from cloudless.core.discovery.endpoints import order_endpoints

    resolver = SeedResolver(seeds, NetworkLookup(servers), SystemClock())
    asyncio.run(resolver.refresh())
    found = order_endpoints(resolver.current(), random.random)
    if not found:
        reasons = "; ".join(f"{seed}: {why}" for seed, why in resolver.problems().items())
        raise Unavailable(
            f"no coordinator is found in DNS: {reasons}",
            hint="name coordinators by address with --coordinator or CLOUDLESS_COORDINATORS, or name a DNS server that "
            f"knows the name with {DNS_SERVER}",
        )
    return tuple(endpoint.address for endpoint in found)
