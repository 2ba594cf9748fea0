"""The key of a backup, as people give it: a key file, a passphrase typed in, or on purpose none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cloudless.errors import BackupError

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE = "CLOUDLESS_BACKUP_KEY_FILE"


def key_file_option(command: F) -> F:
    """Add --key-file to a command."""
    return click.option(
        "--key-file",
        "-k",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=VARIABLE,
        show_envvar=True,
        metavar="FILE",
        help="File that holds the backup's passphrase. Without it a terminal is asked.",
    )(command)


def read_key(key_file: Path | None) -> bytes | None:
    """Return the secret in the file, None without a file. Raises BackupError, InvalidSpec."""
    from cloudless.adapters.backup.sealing import clean_secret

    if key_file is None:
        return None
    try:
        return clean_secret(key_file.read_bytes())
    except OSError as error:
        raise BackupError(f"the key file {key_file} cannot be read: {error.strerror}") from error


def key_to_write(key_file: Path | None, unencrypted: bool) -> bytes | None:
    """Return the secret to encrypt with; None only if that was asked for. Raises BackupError without either."""
    from cloudless.adapters.backup.sealing import clean_secret

    if unencrypted:
        return None
    if key_file is not None:
        return read_key(key_file)
    if not sys.stdin.isatty():
        raise BackupError(
            "a backup holds every secret of the cluster: say how to encrypt it",
            hint=f"give --key-file (or {VARIABLE}), such as one made by `openssl rand -base64 32`; or --unencrypted",
        )
    typed = click.prompt("Passphrase for the backup", hide_input=True, confirmation_prompt=True, err=True)
    return clean_secret(typed.encode())


def key_to_read(key_file: Path | None, encrypted: bool) -> bytes | None:
    """Return the secret to open a backup with; a terminal is asked if it is needed and no file was given."""
    if not encrypted:
        return None
    if key_file is None and sys.stdin.isatty():
        typed: str = click.prompt("Passphrase of the backup", hide_input=True, err=True)
        return os.fsencode(typed)
    return read_key(key_file)
