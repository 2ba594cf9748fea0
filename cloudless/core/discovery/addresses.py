"""`host:port` as text, with IPv6 in brackets: the one place that splits such text and puts it together.

Without brackets `fe80::1:8080` could be an address with or without a port; so it is refused instead of guessed.
"""

from __future__ import annotations

import ipaddress
import re

PORT_MAX = 65535
ANY_HOSTS = ("", "0.0.0.0", "::")
"""What a server is told to listen on every address of its host by; nobody can dial it."""
# What a host's name may be: the rules of RFC 1123, and `_`, which some put into names all the same.
_HOST_NAME = re.compile(r"(?=.{1,253}\.?\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*"
                        r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?\Z")  # fmt: skip

# No top-level domain is a number: such a text was meant to be an address.
_ENDS_IN_NUMBER = re.compile(r"(?:\A|\.)[0-9]+\.?\Z")


def split_address(text: str) -> tuple[str, int]:
    """Return host (an IPv6 one without its brackets, "" if none is given) and port. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit()) or not int(port) <= PORT_MAX:
        raise ValueError("must be host:port, such as 10.0.0.5:8080 or [fd00::5]:8080")
    return read_host(host), int(port)


def read_host(text: str) -> str:
    """Return the host that `text` names, without brackets; "" stands for none. Raises ValueError."""
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError as error:
            raise ValueError("must have an IPv6 address inside the brackets, such as [fd00::5]:8080") from error
    if re.fullmatch(r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%.*)?", text):
        raise ValueError("must have an IPv6 address in brackets, such as [fd00::5]:8080")
    if text and (not _HOST_NAME.match(text) or (_ENDS_IN_NUMBER.search(text) and not is_ip(text))):
        raise ValueError("must be host:port, where the host is a name or an address, such as 10.0.0.5:8080")
    return text


def join_address(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_at(bound: str, advertised: str) -> str:
    """Return where others reach what listens at `bound`: at the host of `advertised` if it listens on all addresses."""
    host, port = split_address(bound)
    if host not in ANY_HOSTS:
        return bound
    return join_address(split_address(advertised)[0], port)


def is_ip(host: str) -> bool:
    """Return whether a host without brackets is an address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
