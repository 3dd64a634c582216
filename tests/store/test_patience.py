"""Roots that answer are not waited for, whatever the answer; those that never do, only so long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastload._store.patience import ask_all
from fastload._store.root import Root
from fastload._tier import shared_tier
from hanging import Hanging

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

ROOTS = tuple(Root(f"/m/{name}", shared_tier(f"/m/{name}")) for name in "abc")


def ask(question: Callable[[Root], str | None], patience_s: float) -> tuple[list[str | None], list[str], float]:
    begin = time.monotonic()
    asked = ask_all(ROOTS, question, patience_s=patience_s)
    replies = [reply for _, reply in asked.replies]
    return replies, [root.path for root, _ in asked.silent], time.monotonic() - begin


def test_nothing_is_an_answer_too() -> None:
    replies, silent, took_s = ask(lambda root: None if root is ROOTS[0] else root.path, 20)
    assert (replies, silent) == ([None, "/m/b", "/m/c"], [])
    assert took_s < 10


def test_a_root_that_hangs_is_waited_for_so_long_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = Hanging(monkeypatch)

    def hang(root: Root) -> str:
        if root is ROOTS[1]:
            hanging.hang()
        return root.path

    replies, silent, took_s = ask(hang, 0.5)
    hanging.release()
    assert (replies, silent) == (["/m/a", "/m/c"], ["/m/b"])
    assert 0.4 < took_s < 10
