"""The system says no: a sample of what ``make test-faults`` does with every call."""

from __future__ import annotations

import shutil

import pytest

from arena import arena, in_memory
from refused import fail_calls
from workers import Worker

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_some_of_the_calls() -> None:
    calls = ("pwrite64", "fallocate", "fsync", "mkdir", "rename", "symlink", "unlink", "preadv2", "read")
    with Worker() as worker, in_memory() as folder, arena(worker, folder, "mount") as place:
        fail_calls(place, calls, every=37).check()


def test_no_descriptor_is_left_to_open() -> None:
    """From the 59th opening on: when what was staged is forgotten."""
    with Worker() as worker, in_memory() as folder, arena(worker, folder, "mount") as place:
        done = place.warm(["-o", "/dev/null", "-e", "inject=openat:error=EMFILE:when=59+"])
        assert done.is_typed, done.err
        assert (place.find_partial(), place.find_unhealed()) == (None, None)
