"""Take secrets out of text before it leaves a host: one function, through which everything in a debug bundle goes.

Better one word too many than one too few: what stands beside a name like "token", what is shaped like a key, a token, a
PEM block, an authorisation header or a password in an address is replaced by `[redacted]`. Ids (32 hexadecimal digits
and less), digests and addresses stay readable: without them a bundle is of no use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MARK = "[redacted]"
_NAMES = (
    r"pass(?:word|wd|phrase|code)|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|secret[_-]?key|signing[_-]?key"
    r"|encryption[_-]?key|cluster[_-]?key|credentials?|authorization|auth[_-]?header|cookie|bearer|dsn"
)
_SECRET_NAME = re.compile(rf"(?i)(?:{_NAMES})")
# Names whose value is a name itself, a number or a place: reading them is what a bundle is for.
_HARMLESS_NAME = re.compile(
    r"(?i)(?:_|-|\b)(?:file|path|dir|ttl|count|total|id|address|addr|max|min|seconds|bytes|ms|s)s?$"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [^-\n]+-----.*?(?:-----END [^-\n]+-----|\Z)", re.DOTALL), MARK),
    # scheme://user:password@host
    (re.compile(r"(?P<head>\b[a-zA-Z][\w+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)"), rf"\g<head>{MARK}"),
    (re.compile(r"(?i)\b(?P<head>bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\g<head> {MARK}"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), MARK),
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]{8,}\.[\w-]*"), MARK),
    # <id>.<secret>, as join and API tokens are written
    (re.compile(r"(?P<head>\b[\w-]{3,40}\.)(?=[\w-]*[A-Za-z])(?=[\w-]*\d)[\w-]{22,}\b"), rf"\g<head>{MARK}"),
    # "name": "value", name=value, name: value, --name value; also after a prefix, as in APP_TOKEN
    (
        re.compile(
            rf"(?i)(?P<head>[\"']?(?:[\w.-]*[_.-])?(?:{_NAMES})(?:[_-]?\w*)?[\"']?\s*(?:[=:]|(?<=\w)\s)\s*)"
            r"(?P<value>\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;}\]\"']+)"
        ),
        "",
    ),
    # Long and random; not the rest of an address, such as spiffe://<cluster>/agent/<name>.
    (re.compile(r"(?<![\w/+.-])(?!//)(?=[\w/+-]*\d)(?=[\w/+-]*[A-Za-z])[A-Za-z0-9+/_-]{44,}={0,2}(?![\w/+-])"), MARK),
)


def redact(text: str) -> str:
    """Return `text` without what looks like a secret."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement or _redact_value, text)
    return text


def _redact_value(match: re.Match[str]) -> str:
    head, value = match["head"], match["value"]
    name = re.sub(r"[\"'\s=:]+$", "", head).strip("\"' ")
    if _HARMLESS_NAME.search(name) or not value.strip("\"'") or not _names_a_value(head):
        return match[0]
    return f"{head}{MARK}"


def _names_a_value(head: str) -> bool:
    """Whether the name is set to the value: prose ("the token was revoked") is no setting, `--token x` is."""
    return head.rstrip().endswith(("=", ":")) or head.lstrip().startswith("--")


def redact_mapping(values: Mapping[str, str]) -> dict[str, str]:
    """Return settings or an environment with the values of secret names, and secrets in any other, taken out."""
    return {name: MARK if is_secret_name(name) and value else redact(value) for name, value in sorted(values.items())}


def is_secret_name(name: str) -> bool:
    """Return whether what goes by this name is a secret."""
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)
