"""Nothing in the repository names a package registry, a path of somebody's machine, or a secret.

A checkout must install from whatever mirror its user has configured, and run wherever it was put.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, name_of

_IGNORED_FOLDERS = {".git", ".venv", "__pycache__", "build", "dist", ".cloudless", ".hypothesis"}
_IGNORED_ENDS = ("_cache", ".egg-info")

# Written so that no line of this file matches itself.
FORBIDDEN = {
    "a package registry": re.compile(
        r"(?i)\b(pypi|pythonhosted|debian|ubuntu|npmjs|yarnpkg|golang|crates|rubygems|conda|anaconda)\.(org|com|io|net)\b"
        r"|\b(deb|ftp|snapshot|security|archive|registry|proxy|mirrors?|index)\.(debian|ubuntu|npmjs|golang|crates)\."
        r"|\b(dl-cdn|repo1?)\.(alpinelinux|maven)\b"
    ),
    "a path in somebody's home": re.compile(r"(?<![\w.$}])/(home|Users)/[a-z][\w.-]*/|(?<![\w.$}])/roo[t]/"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\S"),
    "an access key": re.compile(r"\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[abp]-[A-Za-z0-9-]{20,})\b"),
}
SECRET_SETTING = re.compile(
    r"(?im)^[\s-]*[\w.]*(password|passwd|secret|token|api_key)[\w.]*\s*[:=]\s*[\"']?(?![$<{/])[^\s\"'#]{8,}"
)
SETTINGS_FILES = {".yaml", ".yml", ".env", ".cfg", ".toml", ".ini", ".conf"}


def project_files() -> list[Path]:
    """Return every file that is or could be committed, with git's help where there is git."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if not _is_ignored(path)]
    return sorted(path for path in found if path.is_file())


def _is_ignored(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(part in _IGNORED_FOLDERS or part.endswith(_IGNORED_ENDS) for part in parts)


def text_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


FILES = project_files()


def machine_paths() -> set[str]:
    """Return this checkout's own path and the user's home, where they are telling."""
    paths = {ROOT, Path.home()}
    return {str(path) for path in paths if len(path.parts) > 2}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_names_no_registry_machine_or_secret(path: Path) -> None:
    text = text_of(path)
    found = {what: match.group() for what, pattern in FORBIDDEN.items() if (match := pattern.search(text))}
    if places := [place for place in machine_paths() if re.search(re.escape(place) + r"\b", text)]:
        found["a path of this machine"] = places[0]
    if path.suffix in SETTINGS_FILES and (match := SECRET_SETTING.search(text)):
        found["a secret"] = match.group().strip()
    assert not found


def test_there_are_files_to_look_at() -> None:
    assert ROOT / "setup.cfg" in FILES
    assert Path(__file__).resolve() in FILES


@pytest.mark.parametrize(
    "text",
    [
        "https://files.python" + "hosted.org/simple",
        "http://deb.deb" + "ian.org/debian trixie main",
        "registry.npm" + "js.org",
        "cd /ho" + "me/somebody/cloudless",
        "-----BEGIN EC PRIVATE " + "KEY-----\nMHcCAQ",
    ],
)
def test_forbidden_text_is_found(text: str) -> None:
    assert any(pattern.search(text) for pattern in FORBIDDEN.values())


@pytest.mark.parametrize(
    "text", ["http://mirror.example/debian", "$HOME/.cache", "Debian's archive", "token: ${JOIN_TOKEN}"]
)
def test_harmless_text_is_left_alone(text: str) -> None:
    assert not any(pattern.search(text) for pattern in FORBIDDEN.values())
    assert not SECRET_SETTING.search(text)
