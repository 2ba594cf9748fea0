"""Contexts: the clusters a person knows, where their coordinators are, and what proves who the person is.

One YAML file, written as a whole or not at all::

    current: dev
    contexts:
      dev:
        coordinators: [127.0.0.1:8080, 127.0.0.1:8082]
        enrol: [127.0.0.1:8070]             # where an identity that ran out is exchanged for a new one
        identity: .cloudless/dev/admin      # the person's key and certificate; left out: no TLS

Which context counts: `--context` or CLOUDLESS_CONTEXT, else the current one, else none. Coordinators named by
`--coordinator` or CLOUDLESS_COORDINATORS replace the context's, its identity stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cloudless.errors import BadSettings, NotFound, Problem


@dataclass(frozen=True, slots=True)
class Context:
    """One cluster. `identity`: directory of the person's key and certificate, None where there is no TLS."""

    coordinators: tuple[str, ...]
    identity: Path | None = None
    enrol: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contexts:
    """All of a person's contexts; `current` is "" or one of them."""

    current: str = ""
    known: Mapping[str, Context] = field(default_factory=dict)

    def get(self, name: str) -> Context:
        """Return a context. Raises NotFound."""
        if name not in self.known:
            known = ", ".join(sorted(self.known)) or "none"
            raise NotFound(f"there is no context {name}", hint=f"known are: {known}; see cloudless context list")
        return self.known[name]

    def with_context(self, name: str, context: Context, *, use: bool) -> Contexts:
        return Contexts(name if use else self.current, {**self.known, name: context})

    def without(self, name: str) -> Contexts:
        """Return all but one. Raises NotFound."""
        self.get(name)
        rest = {known: context for known, context in self.known.items() if known != name}
        return Contexts("" if self.current == name else self.current, rest)

    def using(self, name: str) -> Contexts:
        """Return the contexts with another current one. Raises NotFound."""
        self.get(name)
        return replace(self, current=name)


def contexts_file(environ: Mapping[str, str]) -> Path:
    """Return where the contexts are kept: $CLOUDLESS_CONTEXTS, else under the person's configuration directory."""
    if named := environ.get("CLOUDLESS_CONTEXTS"):
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    return Path(home) / "cloudless" / "contexts.yaml"


def read_contexts(file: Path) -> Contexts:
    """Return what is written in `file`, nothing if there is no such file. Raises BadSettings."""
    if not file.exists():
        return Contexts()
    import yaml  # slow to import, and most have no contexts

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        known = {str(name): _context(entry) for name, entry in (document.get("contexts") or {}).items()}
        return Contexts(str(document.get("current") or ""), known)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise BadSettings([Problem(str(file), f"cannot be read as contexts: {error}")]) from error


def write_contexts(file: Path, contexts: Contexts) -> None:
    """Write the file anew; readable to its owner only."""
    import yaml

    document = {
        "current": contexts.current,
        "contexts": {
            name: {
                "coordinators": list(one.coordinators),
                **({"enrol": list(one.enrol)} if one.enrol else {}),
                **({"identity": str(one.identity)} if one.identity else {}),
            }
            for name, one in sorted(contexts.known.items())
        },
    }
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        yaml.safe_dump(document, out, sort_keys=False)
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(file)


def _context(entry: Mapping[str, Any]) -> Context:
    identity = entry.get("identity")
    enrol = tuple(str(one) for one in entry.get("enrol") or ())
    return Context(tuple(str(one) for one in entry["coordinators"]), Path(identity) if identity else None, enrol)
