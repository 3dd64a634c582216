"""Neighbours: a sample of what ``make test-faults`` does longer."""

from __future__ import annotations

from arena import in_memory
from neighbours import look_on, remove_under_loads, wake_zombies
from workers import shared_worker


def test_a_zombie_damages_nothing() -> None:
    with in_memory() as folder:
        wake_zombies(shared_worker(), folder, 1).check()


def test_removal_under_a_load() -> None:
    with in_memory() as folder:
        row = remove_under_loads(shared_worker(torch=True), folder, 3)
        row.check()
        assert row.ends["load: right"]


def test_readers_see_all_or_nothing() -> None:
    with in_memory() as folder:
        row = look_on(shared_worker(torch=True), folder, 2_000)
        row.check()
        assert row.ends["whole"] and row.ends["absent"]
