"""Every verb on a mount whose reads fail or hang from some moment on: it ends, rightly or by an error of ours."""

from __future__ import annotations

import errno
import itertools
import random
import shutil
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena import REPO, model_files
from fuse_mount import Fault, fuse_mount
from results import Row
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from pathlib import Path

    from fuse_mount import FuseMount
    from workers import Done, Job, Worker

WORK = {
    **{f"load by {reader}": ("checked_load:run", reader) for reader in ("direct", "buffered", "mmap")},
    **{verb: ("forge:command", verb, REPO) for verb in ("warm", "verify", "resolve", "inspect", "doctor")},
    "ls": ("forge:command", "ls"),
}
"""By name: a function, and its arguments."""
ENDINGS = ("EIO", "ESTALE", "deadline", "Ctrl-C", "umount -l")
"""Reads fail; or hang, until the deadline or a Ctrl-C; or the mount is taken away from under it."""
IMPORTED = ("fastload._load.engine", "checked_load")
_DEADLINE_S = 1.0
_LETS_GO_S = 8.0
"""Once nobody needs it any more, what is stuck in the kernel is waited for so long at most."""
_INTERRUPTED = 130


@dataclass(frozen=True)
class Case:
    """What is done, and what becomes of the mount after how many right reads."""

    work: str
    ending: str
    right_reads: int

    @property
    def fault(self) -> Fault | None:
        """What the mount shall do."""
        if self.ending == "umount -l":
            return None
        return Fault(self.right_reads, getattr(errno, self.ending, None))

    def __str__(self) -> str:
        return f"{self.work}, {self.ending} after {self.right_reads} reads"


class Mounts:
    """One model that is shown by one mount after another, and a local tier that is empty before each case."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker = worker
        self._shown, self._at, self._local = (folder / name for name in ("shown", "mount", "local"))
        write_cache(self._shown, REPO, COMMIT, model_files())

    def count_reads(self, work: str) -> int:
        """How often it reads, if all is well."""
        shutil.rmtree(self._local, ignore_errors=True)
        with fuse_mount(self._shown, self._at) as mount:
            done = self._start(work).wait()
        assert done.code == 0, done.err
        return mount.reads

    def judge(self, case: Case) -> tuple[str, str | None]:
        """How it ended, and what is wrong with that."""
        shutil.rmtree(self._local, ignore_errors=True)
        begin_s = time.monotonic()
        with fuse_mount(self._shown, self._at, case.fault) as mount:
            done = self._run(case, mount)
            seconds = time.monotonic() - begin_s
        end = "right" if not done.code else f"exit {done.code}"
        is_told = done.code == _INTERRUPTED and case.ending == "Ctrl-C"
        if not (done.is_typed or is_told):
            return end, f"{end}: {done.err[-500:]}"
        if seconds > _DEADLINE_S + _LETS_GO_S:
            return "late", f"{seconds:.1f} s"
        return end, self._find_unhealed() if case.work == "warm" else None

    def _find_unhealed(self) -> str | None:
        """Why the next ``warm`` is not right."""
        with fuse_mount(self._shown, self._at):
            done = self._start("warm").wait()
        done = done if done.code else self._start("load by buffered", tiers="local").wait()
        return f"the next run ends with {done.code}: {done.err[-500:]}" if done.code else None

    def _run(self, case: Case, mount: FuseMount) -> Done:
        job = self._start(case.work, deadline_s=_DEADLINE_S if case.ending == "deadline" else None)
        if case.ending in {"Ctrl-C", "umount -l"}:
            _wait_reads(mount, case.right_reads, job)
            job.kill(signal.SIGINT) if case.ending == "Ctrl-C" else mount.detach()
        return job.wait()

    def _start(self, work: str, *, tiers: str = "local,shared", deadline_s: float | None = None) -> Job:
        environ = {"FASTLOAD_LOCAL": str(self._local), "FASTLOAD_SHARED": str(self._at), "FASTLOAD_TIERS": tiers}
        environ |= {"FASTLOAD_DEADLINE": str(deadline_s)} if deadline_s else {}
        return self._worker.start(*WORK[work], environ=environ | {"FASTLOAD_WRITE_THROUGH": "off"})


def _wait_reads(mount: FuseMount, count: int, job: Job) -> None:
    """Until the mount was read from so often, or the job has ended, or a while."""
    end_s = time.monotonic() + _DEADLINE_S
    while mount.reads < count and not job.has_ended and time.monotonic() < end_s:
        time.sleep(0.001)


def break_mounts(worker: Worker, folder: Path, count: int, seed: int = 4) -> Row:
    """``count`` cases: every work and ending in turns, at random moments."""
    row = Row("a mount whose reads fail or hang, or that is taken away, under every verb")
    rng = random.Random(seed)  # noqa: S311 - cases, no secrets
    mounts = Mounts(worker, folder)
    reads = {work: mounts.count_reads(work) for work in WORK}
    turns = itertools.cycle(itertools.product(ENDINGS, WORK))
    for ending, work in itertools.islice(turns, count):
        case = Case(work, ending, rng.randrange(reads[work]))
        row.add(str(case), *mounts.judge(case))
    return row
