"""``warm`` killed by SIGKILL: at every call that changes the disk, and at random moments."""

from __future__ import annotations

import json
import random
import signal
import time
from statistics import median
from typing import TYPE_CHECKING

from fastload._verify.digest import BLOCK_BYTES
from results import Row
from warming import check_cache

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arena import Arena
    from workers import Done

CALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
    "symlinkat", "mkdir", "unlink", "unlinkat", "rmdir", "ftruncate", "fallocate", "fchmod",
)  # fmt: skip
_SMALL_BYTES = 4096
"""The config is asked for at another place than the shards, and is among what the journals name."""


def kill_at_calls(arena: Arena, every: int = 1, calls: Sequence[str] = CALLS, first: int = 0) -> Row:
    """Killed right before each ``every``-th of the calls that change the disk, from number ``first`` on."""
    row = Row(
        f"SIGKILL at every {'' if every == 1 else f'{every}th '}call that changes the disk, from the {_of(arena)}"
    )
    steps = [(call, n) for call, count in arena.count_calls(calls).items() for n in range(1, count + 1)]
    for call, n in steps[first::every]:
        arena.clear()
        done = arena.warm(["-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={n}"])
        _judge(arena, row, f"{call} {n}", done)
    arena.clear()
    return row


def kill_at_moments(arena: Arena, count: int, seed: int = 8) -> Row:
    """Killed at ``count`` random moments between begin and end."""
    row = Row(f"SIGKILL at random moments, from the {_of(arena)}")
    moments = random.Random(seed)  # noqa: S311 - moments, no secrets
    whole_s = _time(arena)
    for number in range(count):
        arena.clear()
        job = arena.worker.start("forge:command", "warm", "org/name", environ=arena.environ)
        time.sleep(moments.random() * whole_s)
        job.kill(signal.SIGKILL)
        _judge(arena, row, f"moment {number}", job.wait())
    arena.clear()
    return row


def _of(arena: Arena) -> str:
    return "mount" if arena.hub is None else "hub"


def _time(arena: Arena) -> float:
    """How long a ``warm`` of nothing takes: the first of a process may take ten times as long."""
    took: list[float] = []
    for _ in range(5):
        arena.clear()
        begin_s = time.monotonic()
        assert arena.warm().code == 0
        took.append(time.monotonic() - begin_s)
    return median(took)


def _judge(arena: Arena, row: Row, case: str, done: Done) -> None:
    """Nothing that is not whole; the next run heals; what a journal has named is not fetched again."""
    wrong = arena.find_partial()
    is_published = check_cache(arena.tiers.local, arena.files) if wrong is None else 0
    journalled = _journalled_bytes(arena.tiers.repo("org/name") / ".fastload/journals")
    served = arena.hub.served_bytes("/cdn/") if arena.hub else 0
    wrong = wrong or arena.find_unhealed()
    if arena.hub and not wrong:
        again = arena.hub.served_bytes("/cdn/") - served
        whole = sum(map(len, arena.files.values()))
        if again > (0 if is_published else max(0, whole - journalled) + _SMALL_BYTES):
            wrong = f"{again:,} bytes fetched again, where {journalled:,} of {whole:,} were there"
    end = "killed" if done.was_killed else "ended" if done.code == 0 else f"exit {done.code}"
    row.add(case, f"{end}, {'published' if is_published else 'unpublished'}", wrong)


def _journalled_bytes(journals: Path) -> int:
    total = 0
    for path in journals.iterdir() if journals.exists() else ():
        head, *lines = path.read_bytes().split(b"\n")[:-1] or [b'{"size": 0}']
        size = json.loads(head)["size"]
        numbers = {int(line.split()[0]) for line in lines if line[:1].isdigit()}
        total += sum(min(BLOCK_BYTES, size - number * BLOCK_BYTES) for number in numbers)
    return total
