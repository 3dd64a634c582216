"""A call with ``group=`` meets the other ranks as the first thing that it does.

So they need not wait for one whose keywords are wrong, or which is killed before its load has begun.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

# Not when they are needed: a rank that may open no descriptor can read no module, and must say so.
from fastload._group.attendance import Attendance
from fastload._group.process_group import find_seat
from fastload._load.importing import importing_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE_S = 300.0
"""How long the first ones wait for the last one to call, where no deadline says otherwise."""


@contextmanager
def attending(group: object, find_deadline_s: Callable[[], float | None]) -> Iterator[Attendance | None]:
    """This rank's attendance, if there is a ``group``; the others are told of an error in the ``with``.

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
    attendance = Attendance(find_seat(group), _PATIENCE_S if deadline_s is None else min(deadline_s, _PATIENCE_S))
    try:
        yield attendance
    except BaseException as error:
        attendance.fail(error)
        raise
