"""Reads and writes that do less than they were asked."""

from __future__ import annotations

import pytest

import preload
from arena import in_memory
from short import SHIM, do_less
from workers import TORCH, Worker


def test_what_was_not_done_is_done_next() -> None:
    if reason := preload.why_none():
        pytest.skip(reason)
    with in_memory() as folder, Worker(TORCH, preload=preload.build_library(folder, SHIM)) as worker:
        do_less(worker, folder).check()
