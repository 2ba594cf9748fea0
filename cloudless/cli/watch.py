"""Follow changes across the deaths of coordinators.

Each answer says up to which revision all was delivered; after a break the next coordinator is asked from the one
after it, so that nothing is missed and nothing comes twice. History that is gone ends the watch with HistoryGone:
only the caller can list afresh.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from cloudless.cli.client import Client
from cloudless.cli.methods import WATCH
from cloudless.errors import CloudlessError
from cloudless.rpc.v1.event_pb2 import WatchRequest, WatchResponse

_SILENT_S_MAX = 60.0
_PAUSE_S = 0.2


def follow(client: Client, from_revision: int, kinds: tuple[str, ...]) -> Iterator[WatchResponse]:
    """Yield answers from `from_revision` on, without end.

    Raises HistoryGone, a refusal of the request, or Unavailable when no coordinator could be followed for a minute.
    """
    heard_s = time.monotonic()
    while True:
        try:
            for answer in client.stream(WATCH, WatchRequest(from_revision=from_revision, kinds=kinds)):
                heard_s, from_revision = time.monotonic(), max(from_revision, answer.revision + 1)
                yield answer
        except CloudlessError as error:
            if not error.retryable or time.monotonic() - heard_s > _SILENT_S_MAX:
                raise
        time.sleep(_PAUSE_S)
