"""Contestants take turns at loading, each time in a process of its own, and their samples become a table."""

from __future__ import annotations

import logging
import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload.ops.bench.checkpoint import list_tiny, write_checkpoint
from fastload.ops.bench.contestants import CACHED_BOUNDS
from fastload.ops.bench.files import Trial, list_files
from fastload.ops.bench.machine import read_others_cpu_s, wait_until_quiet
from fastload.ops.bench.measure import Job
from fastload.ops.bench.page_cache import PageCacheError, evict, fill
from fastload.ops.bench.process import LoadError, run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastload.ops.bench.tables import Table

_log = logging.getLogger("fastload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How often, in which order and how considerately it is measured."""

    rounds: int
    discarded: int = 1
    """Rounds before those, thrown away: the first loads of a checkpoint find things in another state."""
    seed: int = 0
    patience_s: float = 0.0
    """How long to wait at most for others to be idle."""
    timeout_s: float | None = None
    """For one measurement."""
    max_rate: int | None = None
    """Bytes a second that may be read to fill the page cache; None: any."""
    may_drop_all: bool = False
    """True: where the kernel keeps a file in the page cache, everybody's is dropped."""


class Runner:
    """Runs contestants; ``temporary`` is a folder for the few bytes that each loads before it is measured."""

    def __init__(self, temporary: str, habits: Habits) -> None:
        self.temporary = temporary
        self._habits = habits
        self._order = random.Random(habits.seed)  # noqa: S311 - not for secrets
        folder = os.path.join(temporary, "warm-up")
        write_checkpoint(folder, list_tiny(4), shards=1)
        self._warm_up = list_files(folder)

    def fill_table(self, table: Table, trials: Mapping[str, Trial], loaders: Mapping[str, str] | None = None) -> Table:
        """All contestants, each with what it loads, once per round in a new order. The first rounds are thrown away.

        Args:
            table: says in which state the page cache shall be.
            trials: by row; a row is called by its contestant.
            loaders: the contestants of the rows that are not.

        Raises:
            PageCacheError: the state cannot be brought about.
        """
        loaders = loaders or {}
        if table.state == "cold":
            trials = {row: trial for row, trial in trials.items() if loaders.get(row, row) not in CACHED_BOUNDS}
        for paths in dict.fromkeys(trial.files.paths for trial in trials.values()):
            if table.state == "cold":
                table.method = self._evict(paths)
                continue
            with suppress(PageCacheError):  # best all cached in the same way; of tmpfs, or what is mapped, it is
                self._evict(paths)
            table.method = self._fill(paths)
        for number in range(1 - self._habits.discarded, self._habits.rounds + 1):
            for row in self._order.sample(list(trials), len(trials)):
                if row not in table.errors:
                    self._take_turn(table, row, Job(loaders.get(row, row), trials[row], self._warm_up), number)
        return table

    def _take_turn(self, table: Table, row: str, job: Job, number: int) -> None:
        wait_until_quiet(self._habits.patience_s)
        begin_s, others_s = time.monotonic(), read_others_cpu_s()
        try:
            (sample,) = run_job(job, self._prepare(table.state), timeout_s=self._habits.timeout_s)
        except LoadError as exc:
            table.errors[row] = f"failed: {exc}"
            table.samples.pop(row, None)
            return
        _log.info("%s, round %d: %s %.3f s", table.title, number, row, sample.seconds)
        if number > 0:
            table.samples.setdefault(row, []).append(replace(sample, contestant=row))
            table.others_cpus.append((read_others_cpu_s() - others_s) / (time.monotonic() - begin_s))

    def _prepare(self, state: str) -> Callable[[Sequence[str]], str]:
        return self._evict if state == "cold" else self._fill

    def _fill(self, paths: Sequence[str]) -> str:
        return fill(paths, self._habits.max_rate)

    def _evict(self, paths: Sequence[str]) -> str:
        return evict(paths, may_drop_all=self._habits.may_drop_all)
