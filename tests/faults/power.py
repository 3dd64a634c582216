"""The power is cut in the midst of ``warm``, and in the midst of the recipe that copies and writes a marker."""

from __future__ import annotations

import itertools
import random
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from arena import REPO
from disk import CUTS
from recipe import MARKER, find_damage
from results import Row
from stored_models import COMMIT
from warming import check_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arena import Arena
    from disk import Disk
    from workers import Job

_WATCHED_EVERY = 10
"""In the other cases the dead holder's lease is taken away before the next run, which else watches it for eight
seconds: ``tests/store/test_lease.py`` shows that it does, whatever became of the record."""
_LATER = 1.2
"""The power goes at a moment between the begin and a little after the end."""


def cut_warms(arena: Arena, disk: Disk, count: int, seed: int = 8) -> Row:
    """``warm`` onto the disk, ``count`` times: what is published is whole afterwards, and the next run heals."""
    row = Row(f"power cut at random moments of `warm`, {disk.kind}")
    work = partial(arena.worker.start, "forge:command", "warm", REPO, environ=arena.environ)
    for number, case in enumerate(_cut(disk, count, seed, work)):
        wrong = arena.find_partial()
        end = "unpublished" if wrong or not check_cache(arena.tiers.local, arena.files) else "published"
        if number % _WATCHED_EVERY:
            _forget_leases(arena.tiers.local)
        row.add(case, end, wrong or arena.find_unhealed())
        disk.unmount()
    return row


def cut_recipes(arena: Arena, disk: Disk, count: int, seed: int = 8) -> Row:
    """The recipe in the same harness. Damage is what is told, and is no fault of ours: ``wrong`` stays empty."""
    row = Row(f"power cut at random moments of a copy with a marker, {disk.kind}")
    source = arena.tiers.shared / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT
    target = disk.folder / "model"
    for case in _cut(disk, count, seed, partial(arena.worker.start, "recipe:bring", str(source), str(target))):
        damage = find_damage(target, arena.files)
        row.add(case, "damaged" if damage else "whole" if (target / MARKER).exists() else "no marker")
        disk.unmount()
    return row


def _cut(disk: Disk, count: int, seed: int, start: Callable[[], Job]) -> Iterator[str]:
    """Each time the disk is as after the power came back; the name of the case."""
    rng = random.Random(seed)  # noqa: S311 - moments, no secrets
    whole_s = _time(disk, start)
    for number, (how, flag) in zip(range(count), itertools.cycle(CUTS.items()), strict=False):
        disk.make()
        moment_s = rng.random() * _LATER * whole_s
        job = start()
        time.sleep(moment_s)
        disk.cut(flag)
        job.kill(signal.SIGKILL)
        job.wait()
        disk.unmount()
        disk.mount()
        yield f"moment {number}, {how}"


def _forget_leases(local: Path) -> None:
    for path in (local / ".locks/fastload").glob("*.lease"):
        path.unlink()


def _time(disk: Disk, start: Callable[[], Job]) -> float:
    disk.make()
    begin_s = time.monotonic()
    done = start().wait()
    took_s = time.monotonic() - begin_s
    disk.unmount()
    assert done.code == 0, done.err
    return took_s
