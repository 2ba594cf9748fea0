"""Read a list whole, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudless.cli.client import Client
from cloudless.cli.methods import Method


def pages(client: Client, method: Method[Any, Any], request: Any) -> Iterator[Any]:
    """Yield the answers of a list call until the last page; the first page's revision bounds the later ones below."""
    while True:
        answer = client.call(method, request)
        yield answer
        if not answer.next_token:
            return
        request.page_token = answer.next_token
        request.read.min_revision = max(request.read.min_revision, answer.header.revision)
