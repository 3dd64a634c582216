"""A communicator that is being made, from the moment at which its caller has called.

The rendezvous goes on beside what must be done before a load can begin: keywords are checked, torch and the device are
woken, a module is looked at. Were a rank to come only then, nobody would miss one that is killed or stopped before, nor
hear from one that fails. So it comes at once, sends heartbeats, and says what went wrong when it has gone wrong.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from fastload._group.abort import explain
from fastload._group.communicator import Communicator
from fastload._group.rendezvous import connect_full_mesh
from fastload._group.timeout import RendezvousTimeout
from fastload._thread import LOOK_S, start_thread
from fastload.errors import FastloadError, GroupError

if TYPE_CHECKING:
    from fastload._group.heard import Deadline
    from fastload._group.rendezvous import GroupMember

_HASTE_S = 0.8
"""How long Ctrl-C and the like wait for the others, to tell them: Ctrl-C promises a second."""
_MOMENT_S = 0.1
_STORE_S = 1.0
"""A store that does not answer is waited for a little longer than the time-out."""


class PendingCommunicator:
    """Belongs to the caller until :meth:`take`, and must be told what the caller fails by."""

    def __init__(self, member: GroupMember, timeout_s: float) -> None:
        """Begins to wait for the others.

        Raises:
            FastloadError: there is no thread for that; those that come in time were told.
        """
        self.member = member
        self._timeout = RendezvousTimeout(timeout_s)
        self._result: Future[Communicator] = Future()
        self._is_taken = False
        self._turn = member.turns.queue()
        self._thread = threading.Thread(target=self._rendezvous, name="fastload-rendezvous", daemon=True)
        try:
            start_thread(self._thread)
        except FastloadError as error:
            self._tell_alone(error)
            raise

    def shorten(self, seconds: float | None) -> None:
        """Wait for the others only so long from now on."""
        if seconds is not None:
            self._timeout.shorten(seconds)

    def take(self, deadline: Deadline) -> Communicator:
        """Wait until all have met; ``deadline`` bounds what is waited for, also later.

        Raises:
            GroupError: somebody did not come in time, or failed; or the store cannot be asked.
        """
        self.shorten(deadline.left_s)
        while not wait([self._result], LOOK_S).done:
            pass
        try:
            communicator = self._result.result()
        except GroupError:
            self._thread.join(_MOMENT_S)  # it ends, but where it stays to tell those who come late
            raise
        self._is_taken = True
        communicator.hold_to(deadline)
        return communicator

    def fail(self, error: BaseException) -> None:
        """This rank cannot load: tell the others, as they come; nothing once it was taken.

        What is no ``Exception`` (Ctrl-C) does not wait for those who have not come. If nobody could be told, ``error``
        has a note of it.
        """
        self._turn.explain(error)
        if self._is_taken:
            return
        if not self._result.done():
            self._wait_told(error)
        self._conclude_with(error)

    def _conclude_with(self, error: BaseException) -> None:
        why_not = self._result.exception() if self._result.done() else TimeoutError("they have not come")
        if why_not is None:
            if self._thread.ident is not None:
                self._thread.join()  # it has met them, and may be telling them itself
            self._end(self._result.result(), error)
        elif not self._timeout.is_told and why_not is not error and why_not is not self._timeout.failure:
            error.add_note(f"The other ranks of its group could not be told: {why_not}")

    def _tell_alone(self, error: FastloadError) -> None:
        """Where the system grants no thread, the rendezvous is told by the one that has called."""
        self._timeout.give_up(explain(self.member.rank, error))
        self._rendezvous()
        self._conclude_with(error)

    def _wait_told(self, error: BaseException) -> None:
        self._timeout.give_up(explain(self.member.rank, error))
        if isinstance(error, Exception):
            self._thread.join(max(0.0, self._timeout.left_s) + _STORE_S)
        else:
            self._timeout.shorten(_HASTE_S)
            self._thread.join(_HASTE_S)

    def _rendezvous(self) -> None:
        try:
            self._turn.wait(self._timeout)
            communicator = Communicator(connect_full_mesh(self.member, self._timeout, self._conclude))
        except BaseException as error:  # noqa: BLE001 - whoever takes the communicator raises it
            self._conclude(error)
            return
        self._turn.end()
        self._result.set_result(communicator)
        if self._timeout.failure is not None:
            self._end(communicator, self._timeout.failure)

    def _conclude(self, error: BaseException) -> None:
        """There will be no load; only the first cause counts."""
        self._turn.end()  # those that come late are told beside the next rendezvous
        if not self._result.done():
            self._result.set_exception(error)

    def _end(self, communicator: Communicator, error: BaseException) -> None:
        communicator.fail(error)
        communicator.close()
