"""``warm`` killed by SIGKILL: a sample of what ``make test-faults`` does at every call."""

from __future__ import annotations

import shutil

import pytest

from arena import SOURCES, arena, in_memory
from killed import kill_at_calls, kill_at_moments
from workers import shared_worker

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.mark.parametrize("source", SOURCES)
def test_at_some_of_the_calls_that_change_the_disk(source: str) -> None:
    with in_memory() as folder, arena(shared_worker(), folder, source) as place:
        # Where the first write is the last, the lease is empty, and whoever comes next waits eight seconds.
        kill_at_calls(place, every=8, first=7).check()


def test_while_the_folders_of_the_repo_are_made() -> None:
    """The hub's tools see a broken repo where it has no ``snapshots/``."""
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        kill_at_calls(place, every=2, calls=("mkdir",)).check()


def test_at_the_last_renames_and_removals() -> None:
    """All is there by then, so that no next run brings anything: it sweeps all the same."""
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        kill_at_calls(place, calls=("rename", "unlink"), first=6).check()


def test_at_random_moments() -> None:
    with in_memory() as folder, arena(shared_worker(), folder, "mount") as place:
        row = kill_at_moments(place, 6)
        row.check()
        assert any(end.startswith("killed") for end in row.ends), row
