"""The network goes wrong: what ends at once; ``make test-faults`` has what takes a while too."""

from __future__ import annotations

import pytest

from arena import in_memory
from network import CASES, break_network, build_clock, lose_names, why_no_clock
from workers import TORCH, Worker


def test_ways_that_end_at_once() -> None:
    cases = [case for case in CASES if not case.is_slow]
    with Worker(TORCH) as worker, in_memory() as folder:
        break_network(worker, folder, cases, ("warm",)).check()


def test_a_name_that_nobody_knows() -> None:
    with Worker(TORCH) as worker, in_memory() as folder:
        lose_names(worker, folder).check()


def test_a_clock_that_jumps() -> None:
    if reason := why_no_clock():
        pytest.skip(reason)
    with in_memory() as folder, Worker(TORCH, preload=build_clock(folder)) as worker:
        break_network(worker, folder, CASES[:2]).check()
