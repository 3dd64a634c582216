"""A call with ``group=`` begins to join the other ranks as the first thing that it does.

So they need not wait for one whose keywords are wrong, or which is killed before its load has begun.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

# Not when they are needed: a rank that may open no descriptor can read no module, and must say so.
from fastload._group.pending import PendingCommunicator
from fastload._group.process_group import find_member
from fastload._load.importing import importing_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TIMEOUT_S = 300.0
"""How long the first ones wait for the last one to call, where no deadline says otherwise."""


@contextmanager
def joining_group(group: object, find_deadline_s: Callable[[], float | None]) -> Iterator[PendingCommunicator | None]:
    """The communicator that is being made, if there is a ``group``; the others are told of an error in the ``with``.

    ``find_deadline_s``: how long the call may take, as far as that can be told before all its settings are known to be
    right. Telling the others of one that is not takes no longer either.

    Raises:
        UsageError: it is no process group, or this rank is not in it.
        UnsupportedError, MemoryBudgetError: there is no torch, or this process may start no thread.
    """
    if group is None:
        yield None
        return
    with importing_torch():
        pass
    deadline_s = find_deadline_s()
    pending = PendingCommunicator(find_member(group), _TIMEOUT_S if deadline_s is None else min(deadline_s, _TIMEOUT_S))
    try:
        yield pending
    except BaseException as error:
        pending.fail(error)
        raise
