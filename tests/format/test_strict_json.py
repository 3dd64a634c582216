"""What strict parsing asks of the interpreter, and gives back."""

from __future__ import annotations

import gc
import json
import re
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._collector import collector_paused
from fastload.strict_json import DuplicateKeyError, JsonError, OddNumber, parse_json


def test_host_that_raised_the_recursion_limit_does_not_crash() -> None:
    """With a high limit, Python's own parser would run the C stack over."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200_000)
    try:
        with pytest.raises(JsonError, match="levels of nesting"):
            parse_json(b"[" * 190_000 + b"]" * 190_000)
        assert parse_json(b'{"a":[1,{"b":[]}]}') == {"a": [1, {"b": []}]}
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("is_enabled", [True, False])
def test_collector_is_left_as_it_was(is_enabled: bool) -> None:  # noqa: FBT001 - what pytest passes
    was_enabled = gc.isenabled()
    try:
        (gc.enable if is_enabled else gc.disable)()
        with collector_paused():
            assert not gc.isenabled()
        assert gc.isenabled() == is_enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_a_pause_of_another_thread_is_not_made_to_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may end right after the look at it."""

    def look_and_end() -> bool:
        gc.enable()
        return False

    with monkeypatch.context() as patch:
        patch.setattr(gc, "isenabled", look_and_end)
        with collector_paused():
            pass
    assert gc.isenabled()


def test_error_that_is_kept_does_not_keep_what_was_parsed() -> None:
    class Parsed(dict[str, int]):
        """What the error came through."""

    def fail() -> None:
        parsed = Parsed()
        try:
            assert parsed["a"]
        except KeyError as exc:
            raise JsonError("no a") from exc

    with pytest.raises(JsonError) as caught, collector_paused():
        fail()
    assert not [item for item in gc.get_objects() if type(item) is Parsed]
    assert isinstance(caught.value.__cause__, KeyError)


_PIECES = (r"\ud83d", r"\uDE00", r"\uDBFF", r"\udc00", r"\\", r"\"", r"\u0061", "ud83d", "u", "x", "é")


@given(st.lists(st.sampled_from(_PIECES), max_size=8))
def test_halves_of_surrogate_pairs_are_refused_wherever_python_leaves_one(pieces: list[str]) -> None:
    text = f'{{"a":["{"".join(pieces)}"]}}'
    if not re.search("[\ud800-\udfff]", json.loads(text)["a"][0]):
        assert parse_json(text.encode()) == json.loads(text)
        return
    with pytest.raises(JsonError, match="surrogate"):
        parse_json(text.encode())


_KEYS = ('"a"', r'"\u0061"', '"b"', '":{"', r'"\""')
_LEAVES = ("1", "null", '":"', r'"\\"', r'"\":{"', "[]", "[1,2]")


def _object(members: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key} :{value}" for key, value in members) + "}"


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(st.sampled_from(_KEYS), inner), max_size=3).map(_object)
    return members | st.lists(inner, max_size=2).map(lambda items: f"[{','.join(items)}]")


@given(st.recursive(st.sampled_from(_LEAVES), _containers, max_leaves=8))
def test_a_key_that_is_there_twice_is_found_at_any_depth(text: str) -> None:
    twice: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice.extend(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=look)
    if not twice:
        assert parse_json(text.encode()) == value
        return
    with pytest.raises(DuplicateKeyError) as caught:
        parse_json(text.encode())
    assert caught.value.key in twice


@pytest.mark.parametrize("before", [b"[", b"[1,", b'{"a":', b"[ ", b"[\t", b"[\n", b"[\r"])
@pytest.mark.parametrize("text", ["-1", "-0", "18446744073709551616", "123456789" * 4])
def test_numbers_that_are_no_unsigned_integers_are_odd_wherever_they_stand(before: bytes, text: str) -> None:
    value = parse_json(before + text.encode() + (b"}" if before.startswith(b"{") else b"]"))
    number = value["a"] if isinstance(value, dict) else value[-1]
    assert (type(number), str(number)) == (OddNumber, text)


def test_numbers_are_told_apart_however_many_there_are() -> None:
    """Only of the first ones it is remembered what they are."""
    numbers = [f"0.{n}" for n in range(10_000)]
    assert parse_json(f"[{','.join(numbers * 2)}]".encode()) == numbers * 2


def test_dashes_and_digits_in_strings_make_no_number_odd() -> None:
    raw = b'["-1", "a, -2:-3", "%s", 18446744073709551615, 7]' % (b"9" * 40)
    assert list(map(type, parse_json(raw))) == [str, str, str, int, int]
