"""Read one page of a coordinator over HTTP, with the caller's credentials where there is TLS."""

from __future__ import annotations

import http.client
import os
import ssl

from cloudless.core.discovery.addresses import split_address
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.ports import Credentials


def fetch_text(
    address: str, path: str, timeout_s: float, bytes_max: int, credentials: Credentials | None = None
) -> str:
    """Return what `http(s)://address/path` answers, at most `bytes_max` bytes of it.

    Asks no proxy: those of the environment are for the internet. `timeout_s` is for each step. Raises OSError, and
    ValueError for anything but a page.
    """
    host, port = split_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.connect()
        if credentials is not None:
            connection.sock = _client_context(credentials).wrap_socket(connection.sock, server_hostname=ANY_COORDINATOR)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(bytes_max).decode(errors="replace")
        if answer.status != http.client.OK:
            raise ValueError(f"{path} answers {answer.status}: {text[:200].strip()}")
        return text
    except http.client.HTTPException as error:
        raise ValueError(f"{address} does not speak HTTP: {error!r}") from error
    finally:
        connection.close()


def _client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the TLS context of a client; its key goes through memory, for Python reads keys from files only."""
    context = ssl.create_default_context(cadata=credentials.roots_pem.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with os.fdopen(os.memfd_create("identity"), "wb") as file:
        file.write(credentials.key_pem + credentials.chain_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context
