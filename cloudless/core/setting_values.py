"""Read the text of one setting: return its value, or raise ValueError with what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable

from cloudless.core.discovery.addresses import join_address, split_address
from cloudless.core.discovery.seeds import parse_seeds
from cloudless.core.keys import NAME_PATTERN

ENROL_PORT = 8070
# Short, so that names of workloads under it stay below the 255 bytes that DNS allows.
_DOMAIN = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

# In lower case, as browsers send it; `*` is no origin: a page acts with its reader's certificate.
_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_ORIGINS_MAX = 32


def read_text(raw: str) -> str:
    return raw


def read_boolean(raw: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if raw.lower() not in known:
        raise ValueError("must be true or false")
    return known[raw.lower()]


def read_name(raw: str) -> str:
    if not NAME_PATTERN.fullmatch(raw):
        raise ValueError("must be 1 to 63 of a-z, 0-9, '-' and '.', starting and ending with a letter or digit")
    return raw


def read_dns_domain(raw: str) -> str:
    domain = raw.rstrip(".").lower()
    if not _DOMAIN.fullmatch(domain):
        raise ValueError("must be a domain of at most 63 characters, such as cloudless or cluster.example.org")
    return domain


def parse_address(raw: str) -> str:
    """Return `host:port`, an IPv6 host in brackets; no host stands for every address of this machine."""
    host, port = split_address(raw)
    return join_address(host or "0.0.0.0", port)


def read_seeds(raw: str) -> tuple[str, ...]:
    return tuple(str(seed) for seed in parse_seeds(raw))


def read_enrol_addresses(raw: str) -> tuple[str, ...]:
    return tuple(str(seed) for seed in parse_seeds(raw, ENROL_PORT))


def read_origins(raw: str) -> tuple[str, ...]:
    """Return origins as browsers write them: scheme, host, and the port unless it is the scheme's own."""
    origins = [entry.strip() for entry in raw.split(",")] if raw else []
    for entry in origins:
        found = _ORIGIN.fullmatch(entry)
        if not found or len(origins) > _ORIGINS_MAX:
            raise ValueError("must be origins such as https://console.example.org, separated by commas, each named")
        if (found[1], found[3]) in (("http", ":80"), ("https", ":443")):
            raise ValueError(f"must leave out the port that {found[1]} has anyway, as browsers do")
    return tuple(dict.fromkeys(origins))


def integer_reader(low: int, high: int) -> Callable[[str], int]:
    def read(raw: str) -> int:
        if not re.fullmatch(r"-?\d{1,12}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(raw)

    return read


def seconds_reader(low: float, high: float) -> Callable[[str], float]:
    def read(raw: str) -> float:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)s?", raw)
        if not match or not low <= float(match[1]) <= high:
            raise ValueError(f"must be seconds from {low} to {high}")
        return float(match[1])

    return read


def read_ratio(raw: str) -> float:
    if not re.fullmatch(r"0|1|[01]?\.\d{1,9}", raw) or not 0 <= float(raw) <= 1:
        raise ValueError("must be a share from 0 to 1, such as 0.1")
    return float(raw)


def read_otlp_endpoint(raw: str) -> str:
    """Return the URL that traces are sent to: that of the collector, with the path of traces if it has none."""
    if raw and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", raw):
        raise ValueError("must be the URL of a collector of OTLP over HTTP, such as http://collector:4318")
    if not raw or raw.partition("://")[2].rstrip("/").count("/"):
        return raw
    return f"{raw.rstrip('/')}/v1/traces"


def read_cores(raw: str) -> int:
    if not re.fullmatch(r"\d{1,5}(\.\d{1,3})?", raw):
        raise ValueError("must be a number of cores, such as 2 or 0.5")
    return round(float(raw) * 1000)


def choice_reader(*known: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        match = {name.lower(): name for name in known}.get(raw.lower())
        if match is None:
            raise ValueError(f"must be one of {', '.join(known)}")
        return match

    return read


def read_docker_host(raw: str) -> str:
    if not re.fullmatch(r"unix:///[^\s\0]+", raw):
        raise ValueError("must be the engine's socket on this machine, such as unix:///var/run/docker.sock")
    return raw


def read_cgroup_parent(raw: str) -> str:
    path = raw.strip("/")
    if not re.fullmatch(r"[\w.@:-]+(/[\w.@:-]+)*", path) or {".", ".."} & set(path.split("/")):
        raise ValueError("must be a path such as cloudless or system.slice/cloudless, or none")
    return path
