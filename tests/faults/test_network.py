"""The network goes wrong: a few of the ways that end at once; ``make test-faults`` has all of them."""

from __future__ import annotations

import pytest

import preload
from arena import in_memory
from hub_faults import PORTAL
from network import CASES, CLOCK, break_network
from workers import TORCH, Worker, shared_worker


def test_some_ways() -> None:
    # A portal's page is asked for again for ten seconds; tests/store/test_transfer.py and test_hub.py have it.
    cases = [case for case in CASES if not case.is_slow and case.fault is not PORTAL][1::3]
    assert len(cases) == 5
    with in_memory() as folder:
        break_network(shared_worker(torch=True), folder, cases, ("warm",)).check()


def test_a_clock_that_jumps() -> None:
    if reason := preload.why_none():
        pytest.skip(reason)
    with in_memory() as folder, Worker(TORCH, preload=preload.build_library(folder, CLOCK)) as worker:
        break_network(worker, folder, CASES[:1]).check()
