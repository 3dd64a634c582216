"""Of one group the ranks meet for one load at a time, as they come to one collective at a time.

A call that another thread makes meanwhile waits until those before it have met: two rendezvous at once would take each
other's ranks. Which one came first is a matter of each process; where ranks see it differently, different loads meet
and their terms tell.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from fastload.errors import GroupError

if TYPE_CHECKING:
    from fastload._group.timeout import RendezvousTimeout

_LOOK_S = 0.2
_HINT = "Let one thread load, or give each a group of its own: torch.distributed.new_group"


class Turns:
    """The calls of one rank of one group whose rendezvous is not over."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: list[Turn] = []

    def queue(self) -> Turn:
        """After all that have called before."""
        turn = Turn(self)
        with self.changed:
            self.waiting.append(turn)
            if len(self.waiting) > 1:
                for each in self.waiting:
                    each.is_contended = True
        return turn


class Turn:
    """One call's."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.is_contended = False
        """True if another call waited, or met, at the same time."""

    def wait(self, timeout: RendezvousTimeout) -> None:
        """Until all before have met.

        Raises:
            GroupError: that takes longer than there is ``timeout``.
        """
        with self._turns.changed:
            while self._turns.waiting[0] is not self:
                if timeout.left_s <= 0:
                    raise GroupError("another load of this group still waits for the other ranks", _HINT)
                self._turns.changed.wait(_LOOK_S)  # in steps: the time may become less meanwhile

    def end(self) -> None:
        """This rendezvous is over, or there will be none."""
        with self._turns.changed:
            if self in self._turns.waiting:
                self._turns.waiting.remove(self)
                self._turns.changed.notify_all()

    def explain(self, error: BaseException) -> None:
        """Give ``error`` a note, if calls at the same time may be why."""
        if self.is_contended and isinstance(error, GroupError):
            error.add_note(f"Another thread began to load in the same group at the same time. {_HINT}")


class _TurnsOfGroups:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: WeakKeyDictionary[object, Turns] = WeakKeyDictionary()

    def find(self, group: object) -> Turns:
        with self._lock:
            return self._turns.setdefault(group, Turns())


@cache
def _of_process() -> _TurnsOfGroups:
    return _TurnsOfGroups()


def find_turns(group: object) -> Turns:
    """Those of ``group``, as long as that lives."""
    return _of_process().find(group)
