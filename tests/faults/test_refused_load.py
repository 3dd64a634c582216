"""The system says no, or lies, under a load: a sample of what ``make test-faults`` does."""

from __future__ import annotations

import shutil

import pytest

from arena import arena, in_memory
from refused_load import IMPORTED, PLACES, Loads, fail_loads
from workers import TORCH, Worker

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_some_of_the_calls() -> None:
    with Worker((*TORCH, *IMPORTED)) as worker:
        for place in PLACES:
            fail_loads(worker, place, ("preadv2", "pread64", "openat", "mmap"), every=139).check()


def test_a_staging_buffer_that_cannot_be_kept_from_children() -> None:
    """As where there are too many mappings: an error of memory, and no raw one of the system's."""
    with Worker((*TORCH, *IMPORTED)) as worker, in_memory() as folder, arena(worker, folder, "mount") as place:
        done = Loads(place, "shared").run("direct", ["-o", "/dev/null", "-e", "inject=madvise:error=ENOMEM:when=1+"])
    assert done.code == 21, done.err
