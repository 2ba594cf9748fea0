"""Answers whose entries were serialized before: a list of a thousand costs a join of bytes.

The encoding of protobuf merges what stands side by side: the bytes of two messages of one type, one after the other,
are those of a message with the entries of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Packed:
    """A message: `rest`, and `entries`, each the bytes of a message of the same type that holds nothing else."""

    rest: Message
    entries: Sequence[bytes]

    def SerializeToString(self) -> bytes:
        """Return what the whole message would; named as messages name it, so that a server can send either."""
        return b"".join((self.rest.SerializeToString(), *self.entries))

    def whole(self) -> Message:
        """Return the message as its receiver has it."""
        return type(self.rest).FromString(self.SerializeToString())
