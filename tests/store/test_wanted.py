"""What one wish chose, and whether another one is met by it: said only where it is sure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._store.offer import OfferedFile
from fastload._store.wanted import Wish, matches

GLOBS = st.text("ab*?[]!", min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("narrow", "wide"), [("*Q4*.gguf", "*.gguf"), ("m-?.gguf", "m-*"), ("m.gguf", "*.gguf"), ("[ab].pt", "[ab].pt")]
)
def test_a_narrower_glob_is_met(narrow: str, wide: str) -> None:
    assert Wish(include=(narrow,)).is_met_by(Wish(include=(wide,)), [])


@given(GLOBS, GLOBS, st.text("ab", max_size=5))
def test_what_is_met_by_a_glob_matches_nothing_more(narrow: str, wide: str, path: str) -> None:
    if Wish(include=(narrow,)).is_met_by(Wish(include=(wide,)), []) and matches(path, (narrow,)):
        assert matches(path, (wide,))


def test_a_glob_is_not_met_by_what_it_happens_to_match() -> None:
    assert not Wish(include=("*.gguf",)).is_met_by(Wish(include=("*Q4*.gguf",)), ["m-Q4.gguf"])


@pytest.mark.parametrize(("narrow", "wide"), [("*", "?"), ("[ab]b", "*b]b"), ("?", "[!a]")])
def test_a_glob_whose_text_happens_to_match_is_not_met(narrow: str, wide: str) -> None:
    assert not Wish(include=(narrow,)).is_met_by(Wish(include=(wide,)), [])


@pytest.mark.parametrize("path", ["tokenizer.model.v3", "bpe.codes", "text_encoder/tokenizer.model.v7m1"])
def test_a_tokenizer_is_taken_however_it_is_called(path: str) -> None:
    assert [file.path for file in Wish().choose([OfferedFile(path=path, size=1)])] == [path]
