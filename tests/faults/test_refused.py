"""The system says no: a sample of what ``make test-faults`` does with every call."""

from __future__ import annotations

import re
import shutil
from importlib.util import cache_from_source, find_spec
from typing import TYPE_CHECKING

import pytest

from arena import REPO, arena, in_memory
from refused import fail_calls
from workers import shared_worker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_some_of_the_calls() -> None:
    calls = (
        "clone3",
        "write",
        "pwrite64",
        "fallocate",
        "fsync",
        "mkdir",
        "rename",
        "symlink",
        "unlink",
        "preadv2",
        "read",
    )
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        fail_calls(place, calls, every=37).check()


def test_nothing_can_be_opened_or_listed() -> None:
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        fail_calls(place, ("openat", "getdents64"), every=131).check()


def test_no_memory_can_be_mapped() -> None:
    """Also where a thread needs it that is just about to begin."""
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        fail_calls(place, ("mmap",), every=3).check()


@pytest.mark.parametrize(
    ("verb", "module", "said"),
    [("resolve", "fastload._fetch.api", "cannot be read"), ("load", "fastload._load.engine", "refused")],
)
def test_a_verb_whose_modules_cannot_be_opened(verb: str, module: str, said: str) -> None:
    found = find_spec(module)
    assert found is not None and found.origin is not None
    paths = ["-P", found.origin, "-P", cache_from_source(found.origin)]
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        strace = ["-o", "/dev/null", *paths, "-e", "inject=openat:error=EMFILE"]
        done = place.worker.run(verb, REPO, environ=place.environ, strace=strace)
    assert (done.code, done.is_typed) == (15, True), done.err
    assert re.search(rf"'{re.escape(found.origin)}': {said} \(Too many open files\)", done.err), done.err


def test_no_descriptor_is_left_to_open() -> None:
    """From the 59th opening on: when what was staged is forgotten."""
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        done = place.warm(["-o", "/dev/null", "-e", "inject=openat:error=EMFILE:when=59+"])
        assert done.is_typed, done.err
        assert (place.find_partial(), place.find_unhealed()) == (None, None)


def test_a_file_that_cannot_be_looked_at_is_not_left_out(tmp_path: Path) -> None:
    """A file server that has lost it for a moment says ESTALE; brought without it, a model is no model."""
    lost = tmp_path / "model-00002-of-00002.safetensors"
    lost.write_bytes(b"weights")
    (tmp_path / "dangling").symlink_to("nowhere")
    worker = shared_worker()
    assert worker.start("forge:list_folder", str(tmp_path)).wait().code == 1
    strace = ["-o", "/dev/null", "-P", str(lost), "-e", "inject=newfstatat:error=ESTALE:when=1"]
    done = worker.start("forge:list_folder", str(tmp_path), strace=strace).wait()
    assert "StoreError" in done.err
    assert "Stale file handle" in done.err


def test_a_tier_that_says_nothing_any_more_ends_warm() -> None:
    """To go up to the folder that is there ends at the root, whatever is said of that."""
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        for n in range(200, 300, 14):
            place.clear()
            done = place.warm(["-o", "/dev/null", "-e", f"inject=newfstatat:error=ESTALE:when={n}+"])
            assert done.is_typed, (n, done.code, done.err)
            assert (place.find_partial(), place.find_unhealed()) == (None, None)
