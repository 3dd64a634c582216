"""One run of the benchmark: a model that is there, or a volume, on which one is made for the time of the run."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fastload._fetch.find.local import local_folder
from fastload._fetch.find.resolve import parse_model, resolve
from fastload._fetch.verify.examination import Examination
from fastload._fetch.verify.examine import examine
from fastload._format.index import SHARD_SUFFIX
from fastload._format.select import by_rule
from fastload._load.importing import importing_torch
from fastload._store.directory import find_files
from fastload._store.filesystem import translate_write
from fastload._store.layout import BENCH_PREFIX, lease_folder
from fastload.errors import ModelNotFoundError, NoSpaceError, UsageError
from fastload.ops.bench.checkpoint import GIB, list_llama, write_checkpoint
from fastload.ops.bench.contestants import CEILING, FASTLOAD, PEERS, READINGS, UNPROVEN, find_obstacle
from fastload.ops.bench.files import Files, Trial, list_files
from fastload.ops.bench.machine import describe_machine
from fastload.ops.bench.made_folders import MadeFolders
from fastload.ops.bench.page_cache import PageCacheError
from fastload.ops.bench.tables import Table
from fastload.ops.bench.turns import Habits, Runner
from fastload.ops.bench.verdict import Verdict, judge_volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload.options import Settings

_HOST = "cpu"
STATES = ("cold", "cached")
CONTESTANTS = (*READINGS, *FASTLOAD, *UNPROVEN, *PEERS, CEILING)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """What to measure."""

    model: str | None
    """A name, a folder with or without weights; None: the local tier."""
    size_bytes: int
    """So much is read at most, and so large a model made."""
    device: str = _HOST
    rounds: int = 3
    states: Sequence[str] = STATES
    only: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """fastload's settings, by name, as its loads get them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOutcome:
    """What was found."""

    machine: Mapping[str, str]
    folder: str
    nbytes: int
    max_rate: int | None
    tables: Sequence[Table]
    skipped: Mapping[str, str]
    """Why, by contestant or state."""
    verdict: Verdict | None
    """What the volume is good for; None where nothing was measured that says."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "schema": 1,
            "machine": dict(self.machine),
            "folder": self.folder,
            "bytes": self.nbytes,
            "max_rate": self.max_rate,
            "tables": [table.to_dict() for table in self.tables],
            "skipped": dict(self.skipped),
            "verdict": None if self.verdict is None else {**asdict(self.verdict), "probe": self.verdict.probe},
        }


def run_bench(wish: BenchRequest, settings: Settings) -> BenchOutcome:
    """Measure, and leave nothing behind.

    Raises:
        UsageError: a contestant, or a device, that there is none of.
        UnsupportedError: a device that is not served here.
        ModelNotFoundError: no folder of that name.
        NoSpaceError, NotWritableError: the volume cannot take a model to measure with.
    """
    skipped = _find_skipped(wish, settings.max_rate)
    _check_device(wish.device)
    with MadeFolders() as folders:
        files = _find_weights(wish, settings, folders).capped(wish.size_bytes)
        trial = Trial(files, wish.device, settings.max_rate, wish.options)
        trials = dict.fromkeys((name for name in wish.only or CONTESTANTS if name not in skipped), trial)
        habits = Habits(rounds=wish.rounds, max_rate=settings.max_rate)
        runner = Runner(folders.make(), habits)
        tables = []
        for state in wish.states:
            fit = _fit(trials, state)
            if not fit:
                skipped[state] = "none of the rows is about it"
                continue
            try:
                tables.append(runner.fill_table(Table(f"{state} → {wish.device}", state), fit))
            except PageCacheError as exc:  # a matter of the kernel and of rights; the other state may do
                skipped[state] = str(exc)
        machine = describe_machine(files.folder)
        return BenchOutcome(
            machine=machine,
            folder=files.folder,
            nbytes=files.nbytes,
            max_rate=settings.max_rate,
            tables=tables,
            skipped=skipped,
            # Held back, the rows show that rate and not the volume's.
            verdict=judge_volume(tables, machine["storage"].split()[0]) if settings.max_rate is None else None,
        )


def _find_skipped(wish: BenchRequest, max_rate: int | None) -> dict[str, str]:
    skipped: dict[str, str] = {}
    for name in wish.only or CONTESTANTS:
        if name not in CONTESTANTS:
            raise UsageError(f"no contestant {name!r}", f"Use some of {', '.join(CONTESTANTS)}")
        obstacle = find_obstacle(name, wish.device)
        if max_rate is not None and name not in READINGS:
            obstacle = "it cannot be held to max_rate"
        if obstacle is not None:
            skipped[name] = obstacle
    return skipped


def _check_device(name: str) -> None:
    """Storage alone, and what loads to host memory, is measured also where there is no torch."""
    if name == _HOST:
        return
    with importing_torch():
        from fastload._load.request.device import parse_device
    parse_device(name)


def _fit(trials: Mapping[str, Trial], state: str) -> dict[str, Trial]:
    """Without those whose number would be the same in another state, or mean nothing."""
    return {name: t for name, t in trials.items() if state == "cold" or not name.startswith("read-direct")}


def _find_weights(wish: BenchRequest, settings: Settings, folders: MadeFolders) -> Files:
    """Those of the model; on a bare volume those of one that is made there."""
    if wish.model is None:
        path = local_folder(settings)
    else:
        parsed = parse_model(wish.model, None, settings)
        path = parsed if isinstance(parsed, str) else resolve(wish.model, None, settings).path
    if not os.path.exists(path):
        raise ModelNotFoundError(path, (path,), "Name a model, or a folder on the volume to measure")
    if not _is_bare(path):
        return Files(path, tuple(shard for _, shard in find_files(path, subfolder=None, select=by_rule()).shards))
    _check_space(path, wish.size_bytes)
    # At the root of a tier, tools of the hub would take it for a broken repo.
    folder = lease_folder(path) if path == settings.local else path
    try:
        os.makedirs(folder, exist_ok=True)
        made = folders.make(folder, BENCH_PREFIX)
        shards = max(1, wish.size_bytes // GIB)
        write_checkpoint(made, list_llama(wish.size_bytes), shards=shards, max_rate=settings.max_rate)
    except OSError as exc:
        raise translate_write(folder, exc) from exc
    # Else there would be nothing to prove the bytes by, and the cost of that is one of the questions.
    here_alone = replace(settings, manifests=None, signature_key=None)
    examine(Examination(model=made, revision=None, repairs=False, records=True, include=()), here_alone)
    return list_files(made)


def _is_bare(path: str) -> bool:
    return os.path.isdir(path) and not any(name.endswith(SHARD_SUFFIX) for name in os.listdir(path))


def _check_space(path: str, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < 2 * size_bytes:
        what = f"{free_bytes:,} bytes are free, and twice --size is wanted: {2 * size_bytes:,}"
        raise NoSpaceError(path, what, "Make --size smaller, or name a model that is there")
