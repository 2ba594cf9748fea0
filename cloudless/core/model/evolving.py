"""What all stored values have in common: their classes grow, and two versions of them run side by side in an upgrade.

A value read here may have been written by the next version, with fields that this one has never heard of. They are
carried along as they came, in `unknown_fields`, and written back with the value: a read, a `replace` and a write lose
nothing. Nobody looks into them, and they take part in comparisons, because two values that differ only there do differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolving:
    """A value that is stored and sent. `unknown_fields`: those of a later version, as protobuf has them on the wire."""

    unknown_fields: bytes = field(default=b"", repr=False)
