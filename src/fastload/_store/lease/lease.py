"""A lease: one of many processes, on one machine or many, does a piece of work and the others wait for it.

Leases save transfers, and that is all: nothing that is published may rely on there being one holder. Where they fail,
two processes bring the same bytes, each into files of its own.

The holder rewrites its record every beat. Whoever watches goes by its own clock: a record that has not changed for
``dead_after_s`` of the watcher's time is a dead holder's, whatever the clocks and mtimes of others say. On one machine
flock tells sooner, where it tells the truth (:mod:`~fastload._store.lease.lock`). See
:mod:`~fastload._store.lease.wait` for the way to a lease.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from fastload._store.lease.holder import Holder, short_text, this_process
from fastload._thread import start_thread
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from types import TracebackType

    from fastload._store.lease.file import LeaseFile


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long things take. Everybody who shares a tier should have the same ones."""

    beat_s: float = 1.0
    dead_after_s: float = 8.0
    """With polling and settling, a death is noticed within 10 s."""
    settle_s: float = 0.5
    """How long two who took over at once may need to overwrite each other."""
    stuck_after_s: float = 300.0
    poll_s: float = 0.5


class Lease:
    """Held from :func:`create_lease` or :func:`take_over` to :meth:`release`; a context manager that releases.

    A forked child has the object and not the lease: there, releasing does nothing. But it inherits the lock, so that a
    holder that dies before such a child is noticed by its silence only.
    """

    def __init__(self, file: LeaseFile, what: str, times: LeaseTimes) -> None:
        """Not held yet.

        Raises:
            StoreError: the folder cannot be written.
        """
        self._file = file
        self._times = times
        self._record = this_process(what, file.folder)
        self._what = self._record.what
        self._progress = (0, 0)
        self._is_lost = False
        self._ended = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._beat, name=f"fastload-lease-{file.name}", daemon=True)
        self._lock = file.hold_lock(self._record.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def name(self) -> str:
        """Which of the names that were asked for it is."""
        return self._file.name

    @property
    def is_lost(self) -> bool:
        """True once somebody else took this holder for dead. The work may go on: it is merely done twice."""
        return self._is_lost

    @property
    def record(self) -> Holder:
        """What the next beat tells."""
        done_bytes, total_bytes = self._progress
        return replace(self._record, what=self._what, done_bytes=done_bytes, total_bytes=total_bytes)

    def update(self, done_bytes: int, total_bytes: int) -> None:
        """Say how far the work is; those who wait give up when that does not move. Cheap, and for any thread."""
        self._progress = (done_bytes, total_bytes)

    def say(self, what: str) -> None:
        """Say what is done now, as where one waits in turn for somebody else. Cheap, and for any thread."""
        self._what = short_text(what)

    def start(self) -> None:
        """Beat from now on."""
        start_thread(self._thread)

    def is_on_record(self) -> bool:
        """True if the record on disk is this lease's."""
        with contextlib.suppress(FormatError):
            found = self._file.read()
            return found is not None and found.id == self._record.id
        return False

    def release(self) -> None:
        """Let the next one in. To do it twice does no harm."""
        if os.getpid() != self._pid:
            return
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()  # its last beat must not come after the record is gone
        is_off_record = self._go_off_record()
        lock, self._lock = self._lock, None
        if lock is not None:
            if is_off_record:  # else the free lock shows whoever finds the record that this holder has ended
                self._file.drop_lock(self._record.id)
            os.close(lock)

    def _go_off_record(self) -> bool:
        """Remove the record if it is ours; False if ours may still be there, where it falls silent now."""
        try:
            found = self._file.read()
            if found is not None and found.id == self._record.id:
                self._file.remove()
        except FormatError:
            return True  # nobody can tell whose it is
        except StoreError:  # as where no descriptor is left
            return False
        # A mount that has lost it says that nobody holds it.
        return found is not None or not os.path.lexists(self._file.path)

    def _beat(self) -> None:
        while not self._is_lost and not self._ended.wait(self._times.beat_s):
            with contextlib.suppress(StoreError):  # a mount that is full or away may come back before it is too late
                self._renew()

    def _renew(self) -> None:
        try:
            found = self._file.read()
        except FormatError:  # garbled by whatever it was; a whole record mends it
            found = self._record
        if found is not None and found.id != self._record.id:
            self._is_lost = True
            return
        self._record = replace(self.record, counter=self._record.counter + 1)
        if found is None:  # somebody has tidied up
            self._file.create(self._record)
        else:
            self._file.replace(self._record)


def create_lease(file: LeaseFile, what: str, times: LeaseTimes) -> Lease | None:
    """The lease, if nobody has it. Of many who try at once, one gets it.

    Raises:
        StoreError: the folder cannot be written.
    """
    with contextlib.ExitStack() as undo:
        lease = undo.enter_context(Lease(file, what, times))
        if not file.create(lease.record):
            return None
        file.sweep_dead(lease.record.id)
        lease.start()
        undo.pop_all()
        return lease


def take_over(file: LeaseFile, dead: Holder | None, what: str, times: LeaseTimes) -> Lease | None:
    """The lease of ``dead`` (None: of a malformed record), unless somebody else was quicker.

    All who find it dead put their records over it; once that has settled, the last one's stands, and its writer holds.

    Raises:
        StoreError: the folder cannot be written.
    """
    with contextlib.ExitStack() as undo:
        lease = undo.enter_context(Lease(file, what, times))
        if not _is_still(file, dead):
            return None
        file.replace(lease.record)
        time.sleep(times.settle_s)
        if not lease.is_on_record():
            return None
        file.sweep(lease.record.id)
        lease.start()
        undo.pop_all()
        return lease


def _is_still(file: LeaseFile, dead: Holder | None) -> bool:
    """Looked at again right before it is overwritten, since whoever was quicker lives."""
    try:
        found = file.read()
    except FormatError:
        return dead is None
    return found is not None and dead is not None and found.beat == dead.beat
