"""The way to a lease: at once, or after waiting for whoever holds it.

A waiter gives up only when nothing moves. It polls: neither locks nor notifications cross machines everywhere.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.lease.file import LeaseFile, make_lease_folder
from fastload._store.lease.lease import Lease, LeaseTimes, create_lease, take_over
from fastload.errors import FormatError, LockTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._store.lease.holder import Holder


@dataclass(frozen=True, slots=True)
class Sight:
    """What a waiter has seen of a record, and for how much of its own time that has been so."""

    holder: Holder | None
    """None: the record is malformed."""
    silent_s: float = 0.0
    """Without a beat."""
    still_s: float = 0.0
    """With beats or without, but no nearer to the end, nor is whom it waits for."""

    def then(self, holder: Holder | None, passed_s: float) -> Sight:
        """What it has seen when it looks again ``passed_s`` later and finds ``holder``."""
        if holder is None or self.holder is None or holder.id != self.holder.id:
            is_same = holder is None and self.holder is None
            return Sight(holder, silent_s=self.silent_s + passed_s if is_same else 0.0)
        return Sight(
            holder,
            silent_s=self.silent_s + passed_s if holder.beat == self.holder.beat else 0.0,
            still_s=self.still_s + passed_s if holder.standing == self.holder.standing else 0.0,
        )


class _Slot:
    """One lease that would do, as one waiter sees it."""

    def __init__(self, file: LeaseFile, what: str, times: LeaseTimes) -> None:
        self._file = file
        self._what = what
        self._times = times
        self._looked_s = time.monotonic()
        self.sight: Sight | None = None

    @property
    def path(self) -> str:
        """The record's."""
        return self._file.path

    @property
    def is_stuck(self) -> bool:
        """True if it is held by somebody who lives and gets nowhere."""
        return self.sight is not None and self.sight.still_s >= self._times.stuck_after_s

    def attempt(self) -> Lease | None:
        """The lease if it is free, or its holder dead."""
        self.sight = self._look()
        if self.sight is None:
            return create_lease(self._file, self._what, self._times)
        dead = self.sight.holder
        with self._file.proof_of_death(dead) if dead else contextlib.nullcontext(False) as is_proven:
            if is_proven or self.sight.silent_s >= self._times.dead_after_s:
                return take_over(self._file, dead, self._what, self._times)
        return None

    def _look(self) -> Sight | None:
        # Taken before the read: a waiter held up in between must not take its own silence for another's. And each
        # look counts for so much time only: one that was stopped, or whose machine slept, has watched nothing.
        now_s = time.monotonic()
        passed_s = min(now_s - self._looked_s, 2 * max(self._times.poll_s, self._times.beat_s))
        self._looked_s = now_s
        try:
            holder = self._file.read()
        except FormatError:
            return self.sight.then(None, passed_s) if self.sight else Sight(None)
        if holder is None:
            return None
        return self.sight.then(holder, passed_s) if self.sight else Sight(holder)


def try_hold(folder: str, name: str, what: str, times: LeaseTimes) -> Lease | None:
    """The lease ``name`` in ``folder``, if it is free or its holder provably dead. Does not wait.

    Args:
        folder: where leases are; it is made if it is not there.
        name: of a file; those who want the same use the same.
        what: what will be done while it is held, for people who wait.
        times: how long things take.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    make_lease_folder(folder)
    return _Slot(LeaseFile(folder, name), what, times).attempt()


def wait_hold(
    folder: str,
    names: Sequence[str],
    what: str,
    times: LeaseTimes,
    *,
    is_done: Callable[[], bool],
    tell: Callable[[Holder], None],
) -> Lease | None:
    """One of the leases ``names``, or None once what was waited for is there.

    Args:
        folder: where leases are; it is made if it is not there.
        names: any of them will do.
        what: what will be done while it is held, for people who wait.
        times: how long things take.
        is_done: asked at every look, and once more when the lease is held: its last holder may just have finished.
        tell: called at every look with the holder that is nearest to its end.

    Raises:
        LockTimeoutError: all holders live, and none has got any further for ``stuck_after_s``.
        NotWritableError, NoSpaceError, StoreError: the folder cannot be made or written.
    """
    make_lease_folder(folder)
    slots = [_Slot(LeaseFile(folder, name), what, times) for name in names]
    while not is_done():
        for slot in slots:
            with contextlib.ExitStack() as undo:
                lease = slot.attempt()
                if lease is None:
                    continue
                undo.enter_context(lease)
                if is_done():
                    return None
                undo.pop_all()
                return lease
        _report(slots, times, tell)
        time.sleep(times.poll_s)
    return None


def _report(slots: Sequence[_Slot], times: LeaseTimes, tell: Callable[[Holder], None]) -> None:
    """Tell whom the wait is for; raise if it is for nothing."""
    holders = [slot.sight.holder for slot in slots if slot.sight and slot.sight.holder]
    if not holders:
        return
    nearest = min(holders, key=_rest_bytes)
    tell(nearest)
    if all(slot.is_stuck for slot in slots):
        raise LockTimeoutError(
            slots[holders.index(nearest)].path,
            f"held by {nearest}, which has not moved for {times.stuck_after_s:g} s",
            f"If it hangs, end process {nearest.pid} on {nearest.host}; its lease is free within 10 s",
        )


def _rest_bytes(holder: Holder) -> float:
    return holder.total_bytes - holder.done_bytes if holder.total_bytes else float("inf")
