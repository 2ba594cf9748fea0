"""Manifests as text: YAML or JSON, one or several documents, read without trusting them.

JSON has a reader of its own, ten times as fast, for programs that write much; what it does not take as it is
(and JSON may hold oddities that are no manifest) is left to the YAML reader, which says what is wrong with it.

Refuses what could cost more than its size suggests: aliases (a few lines can stand for billions of
values), deep nesting, more text than `TEXT_BYTES_MAX`, more values than a coordinator can read without
neglecting its lease; tags, for which a manifest has no use; and duplicate keys, which YAML would drop in
silence. Everything else is the strict parser's business (`core.manifest`).
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from cloudless.errors import InvalidSpec, Problem, TooLarge

TEXT_BYTES_MAX = 1 << 20
DEPTH_MAX = 32
DOCUMENTS_MAX = 200
NUMBER_LENGTH_MAX = 64
VALUES_MAX = 20_000
"""Keys, values, lists and mappings together: about 0.1 s to read."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _StrictLoader(_Loader):  # type: ignore[misc]
    """A safe loader that refuses duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _refusal("merge keys (<<) are not allowed", key_node)
            key = (
                key_node.tag,
                getattr(key_node, "value", None) if isinstance(key_node, yaml.ScalarNode) else id(key_node),
            )
            if key in seen:
                raise _refusal(f"the key {key_node.value!r} is given twice", key_node)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping

    def construct_number(self, node: Any) -> object:
        """A number, but none in base 60 (YAML 1.1's 1:30), which takes quadratic time to read and nobody means."""
        text: str = node.value
        if ":" in text:
            return text
        if len(text) > NUMBER_LENGTH_MAX:
            raise _refusal(f"a number of {len(text)} digits", node)
        is_integer = node.tag == "tag:yaml.org,2002:int"
        number: object = self.construct_yaml_int(node) if is_integer else self.construct_yaml_float(node)
        return number


for _tag in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _StrictLoader.construct_number)


def load_documents(text: str) -> list[object]:
    """Return the documents of `text` as plain data. Raises InvalidSpec, TooLarge."""
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        raise TooLarge(f"the manifest is larger than {TEXT_BYTES_MAX} bytes", hint="split it into several")
    read = _load_json(text) if text.lstrip()[:1] == "{" else None
    if read is not None:
        return read
    try:
        _check_shape(text)
        return list(yaml.load_all(text, Loader=_StrictLoader))
    except yaml.YAMLError as error:
        raise InvalidSpec([Problem("", f"not readable as YAML: {_one_line(error)}")]) from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise InvalidSpec([Problem("", f"not readable as YAML: {error}")]) from error


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(r"[\[\]{}]")
_BETWEEN_DOCUMENTS = re.compile(r"\s*(?:---\s*)?")


def _load_json(text: str) -> list[object] | None:
    """Return one JSON object, or several one after the other; None for what is better judged as YAML."""
    if "\\u" in text or text.count(",") + text.count(":") > VALUES_MAX or not _is_shallow(text):
        return None
    documents: list[object] = []
    position, end = 0, len(text.rstrip())
    try:
        while position < end and len(documents) < DOCUMENTS_MAX:
            document, position = _JSON.raw_decode(text, _BETWEEN_DOCUMENTS.match(text, position).end())  # type: ignore[union-attr]
            documents.append(document)
    except (ValueError, RecursionError):
        return None
    return documents if position >= end else None


def _is_shallow(text: str) -> bool:
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_MAX:
            return False
    return True


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is given twice")
    return made


def _short_integer(digits: str) -> int:
    if len(digits) > NUMBER_LENGTH_MAX:
        raise ValueError("a number too long")
    return int(digits)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_int=_short_integer, parse_constant=_refuse_constant)


def dump_yaml(document: object) -> str:
    """Return plain data as YAML text, keys in their own order."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True)
    return text


def _check_shape(text: str) -> None:
    """Walk the events, which costs no more than the text is long, before anything is built from them."""
    depth = documents = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases (*name) are not allowed", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags (!name) are not allowed", event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        values += isinstance(event, yaml.NodeEvent)
        if values > VALUES_MAX:
            raise _refusal(f"more than {VALUES_MAX} values", event)
        if depth > DEPTH_MAX:
            raise _refusal(f"nested deeper than {DEPTH_MAX} levels", event)
        if documents > DOCUMENTS_MAX:
            raise _refusal(f"more than {DOCUMENTS_MAX} documents", event)


def _refusal(what: str, node: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else str(problem)
