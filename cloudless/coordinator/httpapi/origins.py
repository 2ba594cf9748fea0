"""Which web pages may use this API from a browser, where a person's certificate goes along with whatever a page asks.

A page of another origin may only if the settings name it: then the browser is told so (CORS). Any other is refused
before anything is done, since a browser sends a simple request first and asks afterwards. Without TLS a page could also
have a name of its own resolve to this host, and so be of the same origin: there only names that can be ours are
answered to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from cloudless.adapters.http.exchange import Asked
from cloudless.core.discovery.addresses import is_ip
from cloudless.errors import Denied

PREFLIGHT_KEPT_S = 600
SHOWN_HEADERS = "ETag, Retry-After"
TAKEN_HEADERS = "Content-Type, Idempotency-Key, If-Match, Last-Event-ID, Request-Timeout"
LENGTH_MAX = 200


class Origins:
    """`allowed` are origins such as `https://console.example.org`; `own_hosts` names that this host is reached by."""

    def __init__(self, allowed: Collection[str] = (), own_hosts: Collection[str] = ()) -> None:
        self._allowed = frozenset(allowed)
        self._own_hosts = {host.lower() for host in own_hosts} | {"localhost"}

    def require_own(self, asked: Asked) -> None:
        """Raise Denied for what a page of somewhere else asks."""
        host, origin = asked.headers.get("host", "").lower(), asked.headers.get("origin", "")
        if not asked.secure and host and not self._may_be_ours(host):
            raise Denied(
                f"{host[:LENGTH_MAX]} is no name of this coordinator",
                hint="without TLS, ask by address, or by the name in CLOUDLESS_ADVERTISE_ADDR",
            )
        if origin and origin not in self._allowed and _netloc(origin) != host:
            raise Denied(
                f"pages of {origin[:LENGTH_MAX]} may not use this API", hint="CLOUDLESS_HTTP_CORS_ORIGINS names who may"
            )

    def headers(self, asked: Asked) -> Mapping[str, str]:
        """Return what tells the browser that a page may see the answer; nothing for a page that may not."""
        origin = asked.headers.get("origin", "")
        if origin not in self._allowed:
            return {"Vary": "Origin"} if self._allowed else {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": SHOWN_HEADERS,
            "Vary": "Origin",
        }

    def preflight(self, asked: Asked, verbs: Collection[str]) -> Mapping[str, str]:
        """Return what is answered to OPTIONS, which a browser asks without a certificate."""
        allow = ", ".join((*verbs, "OPTIONS"))
        if asked.headers.get("origin", "") not in self._allowed:
            return {"Allow": allow}
        return {
            "Allow": allow,
            "Access-Control-Allow-Methods": ", ".join(verbs),
            "Access-Control-Allow-Headers": TAKEN_HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_KEPT_S),
        }

    def _may_be_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        name = name.strip("[]").rstrip(".")
        return "." not in name or is_ip(name) or name in self._own_hosts


def host_of(origin: str) -> str:
    """Return the host of an origin, without brackets."""
    return urlsplit(origin).hostname or ""


def _netloc(origin: str) -> str:
    """Return `host[:port]` of an origin, "" for one that has none (`null`)."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
