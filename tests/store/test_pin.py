"""Pins keep snapshots; setting and removing them does nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from caches import Cache
from fastload._store.keep.pin import is_pinned, pin, unpin
from fastload.errors import NotWritableError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("source", ["hub", None])
def test_a_pin_is_set_and_removed_whoever_brought_the_snapshot(tmp_path: Path, source: str | None) -> None:
    cache = Cache(tmp_path)
    commit = cache.add("org/a", 1, {"w": 1}, source=source)
    layout = cache.layout("org/a")
    assert not is_pinned(layout, commit)
    pin(layout, commit)
    pin(layout, commit)
    assert is_pinned(layout, commit)
    assert os.path.getsize(layout.ours("pins", commit)) == 0
    cache.check()
    unpin(layout, commit)
    unpin(layout, commit)
    assert not is_pinned(layout, commit)


def test_what_may_not_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    commit = cache.add("org/a", 1, {"w": 1}, source=None)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(30, os.strerror(30))

    unpin(cache.layout("org/a"), commit)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotWritableError, match="read-only"):
        pin(cache.layout("org/a"), commit)
