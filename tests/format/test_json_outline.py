"""Counting values before anything is parsed."""

from __future__ import annotations

import tracemalloc

import pytest

from fastload._json_outline import count_excess, has_more_values, outline_values


@pytest.mark.parametrize("shift", range(-6, 6))
def test_values_are_counted_outside_of_strings_wherever_these_lie(shift: int) -> None:
    """Counted by pieces of 64 KiB; a string may reach from one into the next."""
    raw = b'["' + b"," * ((64 << 10) + shift) + b'"' + b',"[{"' * 10 + b',"' + b"[" * (64 << 10) + b'"]'
    assert outline_values(raw) == b"[" + b"," * 11
    assert outline_values(b'{"' + raw[2:-1] + b":[]}") == b"{" + b"," * 11 + b"["


def test_objects_alone_are_counted_outside_of_strings_too() -> None:
    raw = b'[{"a": [], "{": "{"}, {}, 1, 2]'
    assert has_more_values(raw, 1, b"{")
    assert not has_more_values(raw, 2, b"{")


@pytest.mark.parametrize("shift", range(-6, 6))
def test_marks_are_counted_wherever_they_lie(shift: int) -> None:
    """By pieces of 64 KiB: one may reach from one into the next, and is one all the same."""
    raw = b" " * ((64 << 10) + shift) + b'{"dtype":,,,'
    assert count_excess(raw, b'{"dtype":', 4) == 0
    assert count_excess(raw, b'{"dtype":', 1) == 3


def test_what_comes_later_makes_up_for_nothing() -> None:
    """Whoever has parsed so far has paid, and JSON may be wrong before that is reached."""
    crowd, marks = b"," * (64 << 10), b"{" * (64 << 10)
    assert count_excess(crowd + marks, b"{", 16) == 64 << 10
    assert count_excess(marks + crowd, b"{", 16) == 0


def test_to_count_values_takes_little_memory() -> None:
    """A million strings were a million objects, before anything had been found to be wrong with them."""
    raw = b"[" + b'"[",' * 1_000_000 + b'""]'
    tracemalloc.start()
    try:
        assert len(outline_values(raw)) == 1_000_001
        assert tracemalloc.get_traced_memory()[1] < 4 * len(raw)
    finally:
        tracemalloc.stop()
