"""Ranks that may open no socket say so by the store alone: threads here, over a store of torch's own."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from torch._C._distributed_c10d import HashStore

import fastload
from fastload._group.pending import PendingCommunicator
from fastload._group.rendezvous import GroupMember
from fastload._group.rendezvous_store import _KEY, RendezvousStore
from fastload._group.store_failures import publish_failure, report_failure
from fastload._group.timeout import RendezvousTimeout
from fastload.errors import GroupError, MemoryBudgetError, UnsupportedError
from rendezvous import sit, soon, wait_rendezvous_over

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator


WHY = GroupError("rank has no socket", "Give it one")
SOON_S = 3.0


@pytest.fixture
def store(leaks_nothing: None) -> Iterator[HashStore]:
    yield HashStore()
    wait_rendezvous_over()


def tell(store: HashStore, rank: int, timeout_s: float = 10.0) -> bool:
    """As ``rank``; True if somebody was told."""
    timeout = RendezvousTimeout(timeout_s)
    if rank:
        report_failure(RendezvousStore(store, timeout), WHY, rank, timeout)
    else:
        publish_failure(RendezvousStore(store, timeout), WHY, {1, 2}, timeout, lambda: None)
    return timeout.is_told


@pytest.mark.parametrize("lead_s", [0.0, 0.5])
def test_all_that_come_hear_of_rank_0(store: HashStore, lead_s: float) -> None:
    """Also one that may open no socket either."""
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(tell, store, 0)
        time.sleep(lead_s)
        second, third = pool.submit(sit, store, 1), pool.submit(tell, store, 2)
        with pytest.raises(GroupError, match="rank has no socket"):
            soon(second, SOON_S)
        assert soon(third, SOON_S)
        assert soon(first, SOON_S)


@pytest.mark.parametrize("lead_s", [0.0, 0.5])
def test_all_hear_of_those_that_cannot_come(store: HashStore, lead_s: float) -> None:
    """Two of them, and one more that comes by its socket when it is over."""
    with ThreadPoolExecutor(4) as pool:
        cut_off = [pool.submit(tell, store, rank) for rank in (1, 2)]
        time.sleep(lead_s)
        first = pool.submit(sit, store, 0, 4)
        with pytest.raises(GroupError, match="rank has no socket"):
            soon(first, SOON_S)
        assert all(soon(each, SOON_S) for each in cut_off)
        with pytest.raises(GroupError, match="rank has no socket"):
            sit(store, 3, 4)


def test_one_that_cannot_come_when_it_is_over_is_heard_too(store: HashStore) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = PendingCommunicator(GroupMember(0, 3, store, None), 10.0)
        first_error = pool.submit(first.fail, fastload.UsageError("wrong", "mend it"))
        assert pool.submit(tell, store, 1).result(SOON_S)
        assert tell(store, 2)
        soon(first_error, SOON_S)


@pytest.mark.parametrize("kind", [fastload.UnsupportedError, fastload.MemoryBudgetError])
def test_rank_0_without_a_thread_to_look_for_them_says_so(
    store: HashStore, monkeypatch: pytest.MonkeyPatch, kind: type[fastload.FastloadError]
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise UnsupportedError("no thread", "") if kind is UnsupportedError else MemoryBudgetError(1, 0, "none")

    monkeypatch.setattr("fastload._group.failure_watch.start_thread", refuse)
    with ThreadPoolExecutor(3) as pool:
        first, *others = [pool.submit(sit, store, rank) for rank in range(3)]
        with pytest.raises(kind):
            soon(first, SOON_S)
        for each in others:
            with pytest.raises(GroupError, match=f"rank 0 failed: {kind.__name__}"):
                soon(each, SOON_S)


def test_what_an_earlier_meeting_left_is_not_believed(store: HashStore) -> None:
    """Rank 0 had failed, and some rank; those of the next meeting meet."""
    assert not tell(store, 0, timeout_s=0.3)
    with ThreadPoolExecutor(3) as pool:
        early = [pool.submit(sit, store, rank) for rank in (1, 2)]
        time.sleep(0.5)
        for each in (pool.submit(sit, store, 0), *early):
            soon(each, SOON_S).close()
        assert not tell(store, 1, timeout_s=0.3)
        for each in [pool.submit(sit, store, rank) for rank in range(3)]:
            soon(each, SOON_S).close()


def test_nobody_is_told_twice(store: HashStore) -> None:
    """Whoever comes again comes for the next load."""
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(tell, store, 0, 2.0)
        with pytest.raises(GroupError, match="rank has no socket"):
            sit(store, 1)
        with pytest.raises(GroupError, match="rank 0 did not come"):
            sit(store, 1, timeout_s=0.5)
        assert json.loads(store.get(_KEY))[3] == [WHY.what, WHY.hint]
        soon(first, SOON_S)
