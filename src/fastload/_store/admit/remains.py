"""What whoever held a lease and died has left: on the way to a rename, and of the lease itself.

The next holder sweeps it before the work. But where the dead one had done all there was to do, there is no next holder;
so whoever finds the work done looks too. That costs two listings where nobody has died.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.admit.area import UNDER_LEASE
from fastload._store.lease.file import LeaseFile
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import try_hold
from fastload.errors import StoreError

if TYPE_CHECKING:
    import re

    from fastload._store.admit.area import StagingArea


@dataclass(frozen=True, slots=True)
class Leased:
    """A lease, and what only its holder makes."""

    folder: str
    """Where leases are."""
    name: str
    """Which of them it is."""
    area: StagingArea
    made: re.Pattern[str] = UNDER_LEASE
    """The names in the area."""


def sweep_remains(leased: Leased) -> None:
    """Remove what a dead holder left, if there is anything, and if that holder is provably dead. Never waits.

    Where it may not be removed, as on a tier that is mounted read-only by now, it stays.
    """
    with contextlib.suppress(StoreError):
        if not leased.area.find_remains(leased.made) and not LeaseFile(leased.folder, leased.name).has_traces():
            return
        lease = try_hold(leased.folder, leased.name, "sweeping after one that died", LeaseTimes())
        if lease is not None:
            with lease:
                leased.area.sweep(leased.made)
