"""A process that holds a lease and does as it is told on stdin: ``lease_holder.py FOLDER NAME [UID]``.

It prints ``held`` (or ``none``), then answers each line: ``lost?`` with ``True`` or ``False``, ``release`` with
``released``, ``fork`` with ``forked`` after a forked child has released its copy. SIGTERM ends it as it ends the
command line: by an exception. A first line may be an error of ours, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from fastload._store.lease.lease import Lease, LeaseTimes
from fastload._store.lease.wait import try_hold
from fastload.errors import StoreError

if TYPE_CHECKING:
    from types import FrameType

FAST = LeaseTimes(beat_s=0.1, dead_after_s=1.5, settle_s=0.1, stuck_after_s=60.0, poll_s=0.05)


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _fork_and_release(lease: Lease) -> None:
    child = os.fork()
    if not child:
        lease.release()
        os._exit(0)
    os.waitpid(child, 0)


def _obey(lease: Lease) -> None:
    for line in sys.stdin:
        match line.split():
            case ["lost?"]:
                print(lease.is_lost, flush=True)  # noqa: T201 - the parent reads it
            case ["progress", done_bytes, total_bytes]:
                lease.update(int(done_bytes), int(total_bytes))
            case ["fork"]:
                _fork_and_release(lease)
                print("forked", flush=True)  # noqa: T201
            case ["release"]:
                lease.release()
                print("released", flush=True)  # noqa: T201


def main(folder: str, name: str, uid: int | None = None) -> None:
    """Hold the lease, if there is one to be had; as another user where ``uid`` says so."""
    signal.signal(signal.SIGTERM, _terminate)
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    try:
        lease = try_hold(folder, name, "bringing org/name", FAST)
    except StoreError as error:
        print(json.dumps(error.to_dict()), flush=True)  # noqa: T201
        return
    with lease or nullcontext():
        print("held" if lease else "none", flush=True)  # noqa: T201
        if lease:
            _obey(lease)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
