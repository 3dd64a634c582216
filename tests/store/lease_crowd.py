"""Many processes that want one lease: ``lease_crowd.py FOLDER COUNT NAMES ONCE|EACH|TOGETHER DEAD_AFTER_S``.

Each writes a line for what it saw to stdout. Whoever holds makes ``FOLDER/../inside/<name>``, which fails where
somebody else is inside. With ``once`` the work is done when one has done it, which it has when all others wait for it;
with ``each`` everybody has to hold; with ``together`` likewise, and the first ones stay until they are two.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import wait_hold

if TYPE_CHECKING:
    from fastload._store.lease.holder import Holder

TIMES = LeaseTimes(beat_s=0.1, dead_after_s=60.0, settle_s=0.6, stuck_after_s=60.0, poll_s=0.03)


def _one(folder: str, count: int, names: list[str], mode: str, times: LeaseTimes) -> str:
    """``held``, ``overlap`` if that was not alone, ``waited`` or ``came late`` for whom it was done already."""
    inside, outside, done = (os.path.join(os.path.dirname(folder), name) for name in ("inside", "outside", "done"))
    told: list[Holder] = []

    def wait_for(holder: Holder) -> None:
        if not told:
            _make(os.path.join(outside, str(os.getpid())))
        told.append(holder)

    lease = wait_hold(
        folder, names, "work", times, is_done=lambda: mode == "once" and os.path.exists(done), tell=wait_for
    )
    if lease is None:
        return "waited" if told else "came late"
    with lease:
        mark = os.path.join(inside, lease.name)
        try:
            _make(mark)
        except FileExistsError:
            return "overlap"
        time.sleep(0.01)
        while mode == "once" and len(os.listdir(outside)) < count - 1:
            time.sleep(0.01)
        while mode == "together" and len(os.listdir(inside)) < 2 and not os.path.exists(done):
            time.sleep(0.01)
        crowded = len(os.listdir(inside))
        if mode != "each" and not os.path.exists(done):
            os.close(os.open(done, os.O_CREAT))
        os.unlink(mark)
    return f"held with {crowded}"


def _make(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))


def main(folder: str, count: int, names: list[str], mode: str, dead_after_s: float) -> None:
    """Fork them all, and wait for them."""
    times = replace(TIMES, dead_after_s=dead_after_s)
    for name in ("inside", "outside"):
        os.makedirs(os.path.join(os.path.dirname(folder), name), exist_ok=True)
    children = []
    for _ in range(count):
        child = os.fork()
        if not child:
            os.write(1, f"{_one(folder, count, names, mode, times)}\n".encode())
            os._exit(0)
        children.append(child)
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4], float(sys.argv[5]))
