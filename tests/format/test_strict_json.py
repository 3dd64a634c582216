"""What strict parsing asks of the interpreter, and gives back."""

from __future__ import annotations

import gc
import sys

import pytest

from fastload.strict_json import JsonError, collector_paused, parse_json


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
