"""Where ``warm`` is broken: a local tier that may be in any state, and a source that stays as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hub_server import HubServer, Repo
from stored_models import COMMIT, write_cache
from warming import MIB, Tiers, check_cache, large_shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workers import Done, Worker

REPO = "org/name"
SOURCES = ("mount", "hub")
_LINE = re.compile(r"(?P<thread>\d+) +(?P<call>\w+)\(")


def model_files(shard_bytes: int = 5 * MIB) -> dict[str, bytes]:
    """Two shards, by default of two blocks each, and a config."""
    shards = {f"model-0000{n}-of-00002.safetensors": large_shard(shard_bytes, n) for n in (1, 2)}
    return {**shards, "config.json": b"{}"}


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder where a sync costs nothing, if there is such: sweeps sync thousands of times."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def most_calls(log: Path, calls: Sequence[str]) -> dict[str, int]:
    """How often each of these calls was made, by what strace wrote: in that thread that made it most often."""
    by_thread = Counter(match.groups() for line in log.read_text().splitlines() if (match := _LINE.match(line)))
    counts = dict.fromkeys(calls, 0)
    for (_, call), count in by_thread.items():
        if call in counts:  # strace writes calls that it does not know whatever it was asked
            counts[call] = max(counts[call], count)
    return counts


@dataclass
class Arena:
    """One model in a source, and a local tier."""

    worker: Worker
    tiers: Tiers
    files: dict[str, bytes]
    environ: dict[str, str]
    hub: HubServer | None = None

    def warm(self, strace: Sequence[str] = ()) -> Done:
        """``fastload warm``."""
        return self.worker.run("warm", REPO, environ=self.environ, strace=strace)

    def clear(self) -> None:
        """The local tier is as if it had never been."""
        shutil.rmtree(self.tiers.local, ignore_errors=True)

    def count_calls(self, calls: Sequence[str]) -> dict[str, int]:
        """How often a ``warm`` of nothing makes each of these calls: in that thread that makes it most often."""
        log = self.tiers.folder / "calls"
        assert self.warm(["-o", str(log), "-e", f"trace={','.join(calls)}"]).code == 0
        self.clear()
        return most_calls(log, calls)

    def find_partial(self) -> str | None:
        """What is published and is not whole."""
        try:
            check_cache(self.tiers.local, self.files)
        except AssertionError as found:
            return f"not whole: {str(found)[:300]}"
        return None

    def find_unhealed(self) -> str | None:
        """Why the next run is not right: it must succeed, leave the whole model, and nothing besides."""
        done = self.warm()
        if done.code:
            return f"the next run ends with {done.code}: {done.err[-300:]}"
        if partial := self.find_partial():
            return partial
        if check_cache(self.tiers.local, self.files) != 1:
            return "the next run publishes nothing"
        return self._find_left()

    def _find_left(self) -> str | None:
        """What lies about that nobody needs: what was on its way in, and leases of the dead."""
        leases = self.tiers.local / ".locks/fastload"
        found = {f"{path.stem}.": json.loads(path.read_bytes()) for path in leases.glob("*.lease")}
        unproven = [name for name, record in found.items() if not record["boot_id"]]
        names = [name for name in os.listdir(leases) if not name.startswith(("room.lock", *unproven))]
        left = [*self.tiers.staged(REPO), *names]
        # Who could not read which boot this is has left a lease that nobody can prove dead: it has to run out.
        return f"left over: {left}" if left else None


@contextmanager
def arena(worker: Worker, folder: Path, source: str, files: dict[str, bytes] | None = None) -> Iterator[Arena]:
    """An arena below ``folder`` whose model comes from ``source``."""
    files = model_files() if files is None else files
    tiers = Tiers(folder / source)
    tiers.folder.mkdir()
    environ = {"FASTLOAD_LOCAL": str(tiers.local), "FASTLOAD_SHARED": "", "FASTLOAD_TIERS": f"local,{source}"}
    if source == "hub":
        with HubServer({REPO: Repo(files)}) as hub:
            yield Arena(worker, tiers, files, environ | {"HF_ENDPOINT": hub.url}, hub)
        return
    write_cache(tiers.shared, REPO, COMMIT, files)
    more = {"FASTLOAD_SHARED": str(tiers.shared), "FASTLOAD_TIERS": "local,shared"}
    yield Arena(worker, tiers, files, environ | more)
