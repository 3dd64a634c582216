"""What goes wrong on one rank before it has met the others, such as a keyword that is wrong there alone.

The others wait for it. So it meets them all the same, says what it was, and only then raises it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._fetch.deadline import NEVER
from fastload.errors import FastloadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._fetch.deadline import Deadline

_PATIENCE_S = 300.0
"""How long the first ones wait for the last one to call, where no deadline says otherwise."""


def patience_s(deadline: Deadline | None) -> float:
    """How long to wait for the others."""
    left_s = None if deadline is None else deadline.left_s
    return _PATIENCE_S if left_s is None else left_s


@contextmanager
def attending(group: object, deadline: Deadline | None = None) -> Iterator[None]:
    """Tell the other ranks of ``group``, if there is one, of an error in the ``with``."""
    try:
        yield
    except Exception as error:
        if group is not None:
            _tell(group, error, patience_s(deadline))
        raise


def _tell(group: object, error: Exception, patience_s: float) -> None:
    from fastload._group.communicator import Communicator  # noqa: PLC0415 - whoever has a group has torch
    from fastload._group.process_group import find_seat  # noqa: PLC0415

    try:
        communicator = Communicator(find_seat(group), patience_s=patience_s, deadline=NEVER)
    except FastloadError:
        return  # it is no group, or they do not come: there is nobody to tell, and the error itself is raised
    communicator.fail(error)
    communicator.close()
