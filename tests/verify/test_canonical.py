"""RFC 8785: one spelling, the same as other implementations give."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fastload._verify.canonical import MAX_INTEGER, canonical_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


@given(VALUES)
def test_it_spells_what_another_implementation_spells(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@given(VALUES)
def test_it_means_what_it_meant(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


def test_strings_of_the_rfc() -> None:
    """Section 3.2.2.2 of the RFC."""
    assert (
        canonical_json('\u20ac$\x0f\nA\'B"\\\\"/')
        == rb'"' + "\u20ac$".encode() + rb"\u000f\nA" + rb"'B\"\\\\\"/" + b'"'
    )


def test_the_order_of_keys_of_the_rfc() -> None:
    """Section 3.2.3: by UTF-16 code units, in which U+1F600 comes before U+FB33."""
    keys = ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    spelled = canonical_json(dict.fromkeys(reversed(keys), 0))
    assert list(json.loads(spelled)) == keys
    assert sorted(keys) != keys


def test_control_characters_have_one_escape_each() -> None:
    spelled = canonical_json("".join(map(chr, range(0x21))) + "\x7f").decode()
    assert re.findall(r"\\u....", spelled) == [
        f"\\u{code:04x}" for code in range(0x20) if chr(code) not in "\b\t\n\f\r"
    ]
    assert spelled.endswith(' \x7f"')


@pytest.mark.parametrize("value", [1.0, float("nan"), b"x", {1, 2}, object(), [0.5], {"a": {"b": 1.5}}])
def test_what_has_no_one_spelling_here_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@pytest.mark.parametrize("value", [MAX_INTEGER + 1, -MAX_INTEGER - 1, [1 << 64], "\ud800", {"\udc00": 1}])
def test_what_others_would_read_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError is one
        canonical_json(value)


@pytest.mark.parametrize("value", [MAX_INTEGER, -MAX_INTEGER, 0, True, None, "", [], {}, [[], {}]])
def test_the_edges_are_spelled(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)
