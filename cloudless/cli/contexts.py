"""Clusters a person works with, and as whom: so that a command needs neither addresses nor files.

    <config>/contexts.json                     which there are, and the current one
    <config>/contexts/<name>/identity.pem …    the person's key and certificate in that cluster

`<config>` is CLOUDLESS_CONFIG, else `cloudless` under XDG_CONFIG_HOME or ~/.config. A command uses the context named
by `--context` or CLOUDLESS_CONTEXT, else the current one; addresses given on the command line come before a context's.
Reading costs one small file; no library is imported for it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cloudless.core.keys import NAME_PATTERN
from cloudless.errors import BadCredentials, InvalidSpec, NotFound, Problem

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One cluster as one person. `join_addresses` is where one asks without an identity; empty: the coordinators."""

    name: str
    coordinators: tuple[str, ...]
    join_addresses: tuple[str, ...] = ()
    namespace: str = ""
    cluster_id: str = ""
    person: str = ""


@dataclass(frozen=True, slots=True)
class Book:
    """All contexts. `current` is "" or the name of one."""

    contexts: Mapping[str, Context] = field(default_factory=dict)
    current: str = ""

    def get(self, name: str) -> Context:
        """Raises NotFound."""
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise NotFound(f"there is no context {name}", hint=f"there are: {known}; `cloudless login` makes one")
        return self.contexts[name]

    def with_context(self, context: Context, *, current: bool) -> Book:
        return Book({**self.contexts, context.name: context}, context.name if current else self.current)

    def without(self, name: str) -> Book:
        left = {key: context for key, context in self.contexts.items() if key != name}
        return Book(left, "" if self.current == name else self.current)

    def use(self, name: str) -> Book:
        return replace(self, current=self.get(name).name)


class ContextFile:
    """The book on disk."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_dir(os.environ)
        self._file = self.path / "contexts.json"

    def identity_path(self, name: str) -> Path:
        return self.path / "contexts" / name

    def share_identity(self, name: str, directory: Path) -> None:
        """Use the identity in `directory` for context `name`: one that belongs to a cluster's own directory."""
        path = self.identity_path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        path.symlink_to(directory.resolve())

    def load(self) -> Book:
        """Raises BadCredentials for a file that cannot be read."""
        try:
            plain = json.loads(self._file.read_text(encoding="utf-8"))
            if plain["format"] != _FORMAT:
                raise BadCredentials(f"{self._file} has format {plain['format']}, which this version does not know")
            contexts = {name: _read(name, fields) for name, fields in plain["contexts"].items()}
            current = plain["current"] if plain["current"] in contexts else ""
            return Book(contexts, current)
        except FileNotFoundError:
            return Book()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadCredentials(
                f"{self._file} cannot be read: {error}", hint="repair or remove it, then `cloudless login` again"
            ) from error

    def save(self, book: Book) -> None:
        """Replace the file, whole."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        contexts = {}
        for name, context in sorted(book.contexts.items()):
            contexts[name] = {key: value for key, value in asdict(context).items() if key != "name" and value}
        temporary = self._file.with_name(f".contexts.{os.getpid()}.tmp")
        plain = {"format": _FORMAT, "current": book.current, "contexts": contexts}
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._file)

    def forget(self, name: str) -> None:
        """Remove a context with its key. Raises NotFound."""
        book = self.load()
        book.get(name)
        path = self.identity_path(name)
        if path.is_symlink():
            path.unlink()  # the identity belongs to somebody else
        shutil.rmtree(path, ignore_errors=True)
        self.save(book.without(name))


def config_dir(environ: Mapping[str, str]) -> Path:
    if environ.get("CLOUDLESS_CONFIG"):
        return Path(environ["CLOUDLESS_CONFIG"])
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "cloudless"


def check_name(name: str) -> str:
    """Return a name fit for a context. Raises InvalidSpec."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidSpec([Problem("context", "must be 1 to 63 of a-z, 0-9, '-' and '.'")])
    return name


def _read(name: str, fields: Mapping[str, Any]) -> Context:
    def texts(key: str) -> tuple[str, ...]:
        return tuple(str(text) for text in fields.get(key, ()))

    return Context(
        name=check_name(name),
        coordinators=texts("coordinators"),
        join_addresses=texts("join_addresses"),
        namespace=str(fields.get("namespace", "")),
        cluster_id=str(fields.get("cluster_id", "")),
        person=str(fields.get("person", "")),
    )
