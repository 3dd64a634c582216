"""Meetings of ranks that are threads of one process."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from typing import TYPE_CHECKING, TypeVar

from fastload._fetch.deadline import NEVER, Deadline
from fastload._group.pending import PendingCommunicator
from fastload._group.rendezvous import GroupMember
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from concurrent.futures import Future

    from torch._C._distributed_c10d import HashStore

    from fastload._group.communicator import Communicator

Result = TypeVar("Result")
SIZE = 3


def sit(
    store: HashStore, rank: int, size: int = SIZE, *, timeout_s: float = 10.0, deadline: Deadline = NEVER
) -> Communicator:
    """As ``rank``, until all have come."""
    return PendingCommunicator(GroupMember(rank, size, store, None), timeout_s).take(deadline)


def soon(outcome: Future[Result], within_s: float) -> Result:
    """What comes of it, within so many seconds in which the machine lets somebody run."""
    with Stopwatch() as watch:
        while not wait([outcome], 0.1).done and watch.seconds < within_s:
            pass
    return outcome.result(0)


def wait_rendezvous_over() -> None:
    """Rank 0 stays at its listener until the last one has heard, which is a moment longer than that one."""
    for thread in threading.enumerate():
        if thread.name == "fastload-rendezvous":
            thread.join(5.0)
