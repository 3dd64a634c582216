"""The network goes wrong: a few of the ways that end at once; ``make test-faults`` has all of them."""

from __future__ import annotations

import pytest

from arena import in_memory
from network import CASES, break_network, build_clock, why_no_clock
from workers import TORCH, Worker


def test_some_ways() -> None:
    cases = [case for case in CASES if not case.is_slow][1::4]
    assert len(cases) == 5
    with Worker(TORCH) as worker, in_memory() as folder:
        break_network(worker, folder, cases, ("warm",)).check()


def test_a_clock_that_jumps() -> None:
    if reason := why_no_clock():
        pytest.skip(reason)
    with in_memory() as folder, Worker(TORCH, preload=build_clock(folder)) as worker:
        break_network(worker, folder, CASES[:1]).check()
