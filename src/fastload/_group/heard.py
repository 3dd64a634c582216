"""What one rank has heard of the others: their values, who has left, vouched or ended, and the first failure.

Whoever listens writes it down (:mod:`~fastload._group.control_channel`); whoever loads waits for it here.
"""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any, Protocol

from fastload._group.heartbeat import BEAT_S
from fastload._thread import LOOK_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastload.errors import GroupError

VALUE, LEAVE, VOUCH, BYE = b"WLVB"
"""The kinds of what is said besides failures."""
_ACCOUNT_S = 2.0
"""How long is waited for what is only good to know."""


class Deadline(Protocol):
    """When to give up waiting."""

    @property
    def left_s(self) -> float | None:
        """How much time there is; None: any."""

    def check(self) -> None:
        """Raise ``DeadlineError`` once it is over."""


class Heard:
    """Of all peers of one rank."""

    def __init__(self, peers: Iterable[int]) -> None:
        self.deadline: Deadline | None = None
        """Bounds what is waited for."""
        self.error: GroupError | None = None
        """The first failure, by which the load is over."""
        self._changed = threading.Condition()
        self._values: dict[int, list[bytes]] = {peer: [] for peer in peers}
        self._left: set[int] = set()
        self._vouched: set[int] = set()
        self._accounts: dict[int, bytes] = {}
        self._gone: set[int] = set()
        self._is_closed = False

    # What whoever listens writes down.

    def take(self, kind: int, peer: int, content: bytes) -> None:
        """``peer`` has said this."""
        with self._changed:
            if kind == VALUE:
                self._values[peer].append(content)
            elif kind in {LEAVE, VOUCH}:
                (self._left if kind == LEAVE else self._vouched).add(peer)
                self._accounts[peer] = content
            elif kind == BYE:
                self._gone.add(peer)
            self._changed.notify_all()

    def end(self, peer: int) -> None:
        """Its connection has ended."""
        with self._changed:
            self._gone.add(peer)
            self._changed.notify_all()

    def conclude(self, error: GroupError) -> bool:
        """The load is over; False if it was already: only the first cause counts."""
        with self._changed:
            if self.error is not None or self._is_closed:
                return False
            self.error = error
            self._changed.notify_all()
        return True

    def close(self) -> None:
        """Whatever fails from now on is no failure of this load."""
        self._is_closed = True

    # What whoever loads wants to know.

    def check(self) -> None:
        """Raise ``GroupError`` if somebody failed."""
        if self.error is not None:
            raise self.error

    @property
    def is_whole(self) -> bool:
        """True as long as nobody has failed."""
        return self.error is None

    @property
    def is_over(self) -> bool:
        """True if there is nothing more to be heard."""
        return self._is_closed or self.error is not None

    @property
    def gone(self) -> set[int]:
        """Those who have said farewell, or whose connection has ended."""
        return self._gone

    def has_left(self, peer: int) -> bool:
        """True if it wants no more tensors."""
        return peer in self._left

    def had_left(self, peer: int) -> bool:
        """After a connection to ``peer`` broke: True if it wanted no more tensors; a moment later that may be heard."""
        with self._changed:
            self._changed.wait_for(lambda: self.error is not None or peer in self._left | self._gone, BEAT_S)
        return peer in self._left

    def wait_failure(self) -> None:
        """For a moment: after a connection broke, the reason may be heard from somebody."""
        with self._changed:
            self._changed.wait_for(lambda: self.error is not None, BEAT_S)

    def wait_value(self, peer: int) -> bytes | None:
        """The next value of ``peer``; None: it has left before.

        Raises:
            GroupError: somebody failed.
            DeadlineError: the deadline is over.
        """
        with self._changed:
            self._wait(lambda: peer in self._left | self._gone or bool(self._values[peer]))
            return self._values[peer].pop(0) if self._values[peer] else None

    def find_account(self, peer: int) -> Any:
        """What ``peer``, which has left, said of itself last; None: nothing.

        Waits for a moment where it still sends, or reads what nobody wants: that is no reason to hold up those who have
        all that they want.

        Raises:
            GroupError: somebody failed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self.error is not None or peer in self._vouched | self._gone, timeout=_ACCOUNT_S
            )
            self.check()
            account = self._accounts.get(peer)
        return None if account is None else pickle.loads(account)  # noqa: S301 - peers have shown the rendezvous's token

    def wait_vouched(self, peer: int) -> bool:
        """True once ``peer``, which has left, has proven what it sent; False: it ended before.

        Raises:
            GroupError: somebody failed.
            DeadlineError: the deadline is over.
        """
        with self._changed:
            self._wait(lambda: peer in self._vouched | self._gone)
            return peer in self._vouched

    def _wait(self, is_there: Callable[[], bool]) -> None:
        """Until it is there, or the load is over; whoever calls holds ``_changed``."""
        while not self._changed.wait_for(lambda: self.error is not None or is_there(), self._next_look_s()):
            if self.deadline is not None:
                self.deadline.check()
        self.check()

    def _next_look_s(self) -> float:
        left_s = None if self.deadline is None else self.deadline.left_s
        return LOOK_S if left_s is None else min(LOOK_S, left_s)
