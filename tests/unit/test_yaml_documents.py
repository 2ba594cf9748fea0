"""Manifests as text: what is read, and what is refused before it costs anything."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cloudless.adapters.yaml_documents import DEPTH_MAX, DOCUMENTS_MAX, VALUES_MAX, load_documents
from cloudless.errors import InvalidSpec

_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp", "Co", "Cn")), max_size=20)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(st.dictionaries(_TEXTS, _VALUES, min_size=1, max_size=4), min_size=1, max_size=3))
def test_json_is_read_as_it_was_written(documents: list[dict[str, Any]]) -> None:
    text = "\n---\n".join(json.dumps(document, ensure_ascii=False) for document in documents)
    assert load_documents(text) == documents


@given(st.dictionaries(st.text("abc:/-_ü", min_size=1, max_size=8), _VALUES, max_size=4))
def test_json_means_the_same_to_both_readers(document: dict[str, Any]) -> None:
    text = json.dumps(document, ensure_ascii=False)
    assert load_documents(text) == load_documents(f"# read as YAML\n{text}")


def test_json_documents_may_follow_one_another() -> None:
    assert load_documents('{"a": 1}\n{"a": 2}\n---\n{"a": 3}\n') == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "given twice"),
        ('{"a": ' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}", "nested deeper"),
        ('{"a": ' + "9" * 100 + "}", "100 digits"),
        ('{"a": [' + "1," * VALUES_MAX + "1]}", "values"),
        ('{"a": 1}\n---\n' * (DOCUMENTS_MAX + 1), "documents"),
        ('{"a": 1', "did not find"),
        ('{"a": "\\ud800"}', "not readable"),
    ],
)
def test_json_that_is_no_manifest_is_refused_as_yaml_would_be(text: str, said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        load_documents(text)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": Infinity}'])
def test_words_that_json_does_not_have_are_text_as_in_yaml(text: str) -> None:
    assert load_documents(text) == list(yaml.safe_load_all(text))


def test_braces_within_texts_do_not_count_as_nesting() -> None:
    text = "{" * 100
    assert load_documents(json.dumps({"a": text, 'b"': text})) == [{"a": text, 'b"': text}]
