"""The system says no, or lies, under a load: a sample of what ``make test-faults`` does."""

from __future__ import annotations

import shutil

import pytest

from arena import arena, in_memory
from refused_load import PLACES, READERS, Loads, fail_loads
from workers import shared_worker

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_some_of_the_calls() -> None:
    for place in PLACES:
        fail_loads(shared_worker(torch=True), place, ("preadv2", "pread64", "openat", "mmap"), every=139).check()


@pytest.mark.parametrize("fault", ["error=EIO", "error=ESTALE"])
def test_a_read_of_weights_that_fails_once_is_made_again(fault: str) -> None:
    """The first two are of the ref and of the manifest: without these nothing is known of any bytes."""
    with in_memory() as folder, arena(shared_worker(torch=True), folder, "mount") as place:
        assert place.warm().code == 0
        loads = Loads(place, "local")
        for reader in READERS:
            for n in range(3, loads.count_calls(reader, ("preadv2",))["preadv2"] + 1):
                done = loads.run(reader, ["-o", "/dev/null", "-e", f"inject=preadv2:{fault}:when={n}"])
                assert done.code == 0, (reader, n, done.err)


def test_a_staging_buffer_that_cannot_be_kept_from_children() -> None:
    """As where there are too many mappings: an error of memory, and no raw one of the system's."""
    with in_memory() as folder, arena(shared_worker(torch=True), folder, "mount") as place:
        done = Loads(place, "shared").run("direct", ["-o", "/dev/null", "-e", "inject=madvise:error=ENOMEM:when=1+"])
    assert done.code == 21, done.err
