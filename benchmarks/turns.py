"""Contestants take turns at loading, each time in a process of its own, and their samples become a table."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from contestants import CEILINGS, list_shards
from free_memory import make_free_memory
from machine import read_others_cpu_s, wait_until_quiet
from make_checkpoint import GIB, list_tiny, write_checkpoint
from measure import Sample
from page_cache import evict, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tables import Table

_STAGING_BYTES = GIB // 2
_HERE = os.path.dirname(os.path.abspath(__file__))


class LoadError(RuntimeError):
    """A contestant did not deliver."""


class Runner:
    """Runs contestants against checkpoints; ``temporary`` is a folder on the disk that is measured."""

    def __init__(self, temporary: str, *, rounds: int, seed: int, patience_s: float) -> None:
        self.temporary = temporary
        self._rounds = rounds
        self._patience_s = patience_s
        self._order = random.Random(seed)  # noqa: S311  not for secrets
        self._warm_up = os.path.join(temporary, "warm-up")
        write_checkpoint(self._warm_up, list_tiny(4), shards=1)

    def fill_table(self, table: Table, folders: Mapping[str, str]) -> Table:
        """All contestants, each with the folder it loads, once per round in a new order. Round 0 is thrown away."""
        if table.state == "cold":  # a ceiling's source is the page cache
            folders = {name: folder for name, folder in folders.items() if name not in CEILINGS}
        prepare = evict if table.state == "cold" else fill
        for folder in dict.fromkeys(folders.values()):
            evict(list_shards(folder))  # in any case, so that what is cached was all cached in the same way
            table.method = prepare(list_shards(folder))
        for number in range(self._rounds + 1):
            for contestant in self._order.sample(list(folders), len(folders)):
                if contestant in table.errors:
                    continue
                wait_until_quiet(self._patience_s)
                begin_s, others_s = time.monotonic(), read_others_cpu_s()
                try:
                    sample = self._run_one(contestant, folders[contestant], prepare)
                except LoadError as exc:
                    table.errors[contestant] = f"failed: {exc}"
                    table.samples.pop(contestant, None)
                    continue
                print(f"{table.title}, round {number}: {contestant} {sample.seconds:.3f} s", file=sys.stderr)
                if number:
                    table.samples.setdefault(contestant, []).append(sample)
                    table.others_cpus.append((read_others_cpu_s() - others_s) / (time.monotonic() - begin_s))
        return table

    def _run_one(self, contestant: str, folder: str, prepare: Callable[[Sequence[str]], str]) -> Sample:
        command = [sys.executable, os.path.join(_HERE, "measure.py"), contestant, folder, self._warm_up]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
            assert child.stdout
            if child.stdout.readline() == "ready\n":
                paths = list_shards(folder)
                prepare(paths)
                nbytes = sum(map(os.path.getsize, paths))
                # The tensors, and once more the same, because a cold load may fill the page cache.
                make_free_memory(2 * nbytes + _STAGING_BYTES)
            answer, complaint = child.communicate("go\n")
        if child.returncode:
            raise LoadError((complaint.strip().splitlines() or [f"exit code {child.returncode}"])[-1])
        return Sample(**json.loads(answer))
