"""Read this machine's apt sources and find the entry of Debian's main archive.

Both formats are read: one-line `.list` and deb822 `.sources`. Only one entry matters: the archive of the
distribution itself with component `main`; third parties, `-security` and `-updates` are passed over. What is
kept of it is where it is and which keys sign it, so that another suite of the same archive can be asked for
with the same trust. Options that loosen the trust (`trusted=yes`, `allow-insecure`) are never carried over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_SIDE_SUITE = re.compile(r"-(security|updates|backports|proposed|sloppy|debug)|/")
_SCHEMES = ("http", "https", "file", "mirror+http", "mirror+https", "mirror+file", "tor+http", "tor+https")


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive: its URIs, and the keyring path or inline key block of `Signed-By` ("" = apt's own keyring)."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str

    def stanza(self, suite: str) -> str:
        """Return a deb822 source for `suite` of this archive, component main, signed by the same keys."""
        lines = ["Types: deb", f"URIs: {' '.join(self.uris)}", f"Suites: {suite}", "Components: main"]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def debian_archive(etc_apt: Path = Path("/etc/apt")) -> Archive | None:
    """Return the machine's entry of Debian's main archive, or None. One that names its keyring is preferred."""
    candidates = [archive for archive in _archives(etc_apt) if _is_debian_main(archive)]
    return min(candidates, key=lambda archive: not archive.signed_by, default=None)


def _archives(etc_apt: Path) -> Iterator[Archive]:
    parts = etc_apt / "sources.list.d"
    for path in [etc_apt / "sources.list", *sorted(parts.glob("*.list"))]:
        yield from (archive for line in _text(path).splitlines() if (archive := parse_line(line)))
    for path in sorted(parts.glob("*.sources")):
        yield from parse_deb822(_text(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def parse_line(line: str) -> Archive | None:
    """Parse `deb [options] uri suite component...`, or return None for anything else."""
    match = re.match(r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>[^#]*)", line)
    words = match["rest"].split() if match else []
    if match is None or len(words) < 3:
        return None
    options = dict(word.split("=", 1) for word in (match["options"] or "").split() if "=" in word)
    return Archive((words[0],), (words[1],), tuple(words[2:]), options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[Archive]:
    """Yield the enabled binary archives of a `.sources` file. A multi-line `Signed-By` is kept as it is."""
    without_comments = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", without_comments):
        fields = {
            name.lower(): value.strip()
            for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, flags=re.MULTILINE)
        }
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            uris, suites, components = (fields.get(name, "").split() for name in ("uris", "suites", "components"))
            yield Archive(tuple(uris), tuple(suites), tuple(components), fields.get("signed-by", ""))


def _is_debian_main(archive: Archive) -> bool:
    plain = any(not _SIDE_SUITE.search(suite) for suite in archive.suites)
    reachable = bool(archive.uris) and all(urlsplit(uri).scheme in _SCHEMES for uri in archive.uris)
    return plain and reachable and "main" in archive.components and _is_debians(archive)


def _is_debians(archive: Archive) -> bool:
    # Third parties use Debian's suite names and "main" too; what they cannot have is Debian's keys.
    if archive.signed_by.startswith("/"):
        return Path(archive.signed_by).name.startswith("debian-archive")
    return all(urlsplit(uri).path.rstrip("/").endswith("/debian") for uri in archive.uris)
