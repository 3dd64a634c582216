"""Many processes that want one lease: ``lease_crowd.py FOLDER COUNT NAMES ONCE|EACH``.

Each writes a line for what it saw to stdout. Whoever holds makes ``FOLDER/../inside/<name>``, which fails where
somebody else is inside. With ``once`` the work is done when one has done it; with ``each`` everybody has to hold.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import wait_hold

if TYPE_CHECKING:
    from fastload._store.lease.holder import Holder

TIMES = LeaseTimes(beat_s=0.1, dead_after_s=2.0, settle_s=0.6, stuck_after_s=60.0, poll_s=0.03)


def _one(folder: str, names: list[str], mode: str) -> str:
    """``held``, ``overlap`` if that was not alone, ``waited`` or ``came late`` for whom it was done already."""
    inside = os.path.join(os.path.dirname(folder), "inside")
    done = os.path.join(inside, "done")
    told: list[Holder] = []
    lease = wait_hold(
        folder, names, "work", TIMES, is_done=lambda: mode == "once" and os.path.exists(done), tell=told.append
    )
    if lease is None:
        return "waited" if told else "came late"
    with lease:
        mark = os.path.join(inside, lease.name)
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "overlap"
        time.sleep(0.5 if mode == "once" else 0.01)
        crowded = len(os.listdir(inside))
        if mode == "once":
            os.close(os.open(done, os.O_CREAT | os.O_EXCL))
        os.unlink(mark)
    return f"held with {crowded}"


def main(folder: str, count: int, names: list[str], mode: str) -> None:
    """Fork them all, and wait for them."""
    os.makedirs(os.path.join(os.path.dirname(folder), "inside"), exist_ok=True)
    children = []
    for _ in range(count):
        child = os.fork()
        if not child:
            os.write(1, f"{_one(folder, names, mode)}\n".encode())
            os._exit(0)
        children.append(child)
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4])
