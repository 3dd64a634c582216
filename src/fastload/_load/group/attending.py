"""What goes wrong on one rank before it has met the others, such as a keyword that is wrong there alone.

The others wait for it. So it goes to them all the same, says what it was, and only then raises it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._fetch.deadline import Deadline

_HASTE_S = 0.8
"""How long Ctrl-C and the like wait for the others, to tell them: Ctrl-C promises a second."""
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
    except BaseException as error:
        if group is not None:
            _tell(group, error, patience_s(deadline) if isinstance(error, Exception) else _HASTE_S)
        raise


def _tell(group: object, error: BaseException, patience_s: float) -> None:
    from fastload._group.meeting import tell  # noqa: PLC0415 - whoever has a group has torch
    from fastload._group.process_group import find_seat  # noqa: PLC0415

    try:
        tell(find_seat(group), error, patience_s=patience_s)
    except Exception as exc:  # noqa: BLE001 - no group, or nobody came: the error itself is what the caller must get
        error.add_note(f"The other ranks of its group could not be told: {exc}")
