"""All that is broken on purpose, at length: ``make test-faults``. Prints a table; exits with 1 where a case was wrong.

The seeds are fixed, so that a case has a number. ``--share 0.1`` runs a tenth of the random cases; ``--part killed``
with ``--share 5`` five times as many, of one part. A part says how long it took: all take 15 minutes at most.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

import bounded
import disk
import fuse_mount
import leaks
import memory_group
import mounted
import network
import piped
import preload
import refused_load
import roots
import short
from arena import SOURCES, arena, in_memory
from changed import change_under_loads
from fuzz import doors, fuzz, hub_doors
from killed import kill_at_calls, kill_at_moments
from neighbours import look_on, remove_under_loads, wake_zombies
from power import cut_recipes, cut_warms
from refused import ERRORS, fail_calls
from results import Row, as_json, as_text
from store_machine import StoreMachine
from workers import TORCH, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_ONCE = 2
"""Parts: many of them wait, for servers, leases and deadlines."""
_MOMENTS = 100
"""From each source."""
_CUTS = {"ext4": 80, "xfs": 40}
_RECIPES = 40
_ZOMBIES = 12
_REMOVALS = 100
_LOOKS = 100_000
_LOADS = 200
_INPUTS = 1000
_ANSWERS = 30
_SEQUENCES = 400
_MOUNTS = 90
_EVERY_LOAD = 11
"""Of the cases of a load from each place, of which there are thousands."""
_EVERY = {"newfstatat": 23, "openat": 7, "getdents64": 3}
"""Of calls that are made hundreds of times, each so-manieth case."""


def _killed(share: float) -> Iterator[Row]:
    for source in SOURCES:
        with Worker() as worker, in_memory() as folder, arena(worker, folder, source) as place:
            yield kill_at_calls(place)
            yield kill_at_moments(place, int(_MOMENTS * share))


def _powerless(share: float) -> Iterator[Row]:
    for kind, count in _CUTS.items():
        if reason := disk.why_none(kind):
            yield Row(f"power cut, {kind}: not run here: {reason}")
            continue
        with (
            Worker() as worker,
            in_memory() as folder,
            arena(worker, folder, "mount") as place,
            disk.disk(kind, folder, place.tiers.local) as made,
        ):
            yield cut_recipes(place, made, int(_RECIPES * share))
            yield cut_warms(place, made, int(count * share))


def _crowded(share: float) -> Iterator[Row]:
    with Worker(TORCH) as worker:
        for sweep, count in ((wake_zombies, _ZOMBIES), (remove_under_loads, _REMOVALS), (look_on, _LOOKS)):
            with in_memory() as folder:
                yield sweep(worker, folder, int(count * share))


def _bounded(_share: float) -> Iterator[Row]:
    if reason := memory_group.why_none():
        yield Row(f"a memory cgroup: not run here: {reason}")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield bounded.bring_and_stream(Path(folder), bounded.FULL)


def _leaking(share: float) -> Iterator[Row]:
    if reason := leaks.why_none():
        yield Row(f"what loads leave: not run here: {reason}")
        return
    with tempfile.TemporaryDirectory() as folder:  # not in memory: the loads have a /dev/shm of their own
        yield leaks.count_leaks(Path(folder), int(_LOADS * share))


def _networked(_share: float) -> Iterator[Row]:
    with Worker(TORCH) as worker, in_memory() as folder:
        yield network.break_network(worker, folder)
    with Worker(TORCH) as worker, in_memory() as folder:
        yield network.lose_names(worker, folder)
    if reason := preload.why_none():
        yield Row(f"a clock that jumps: not run here: {reason}")
        return
    with in_memory() as folder, Worker(TORCH, preload=preload.build_library(folder, network.CLOCK)) as worker:
        row = network.break_network(worker, folder, network.CASES[:2])
        row.what = f"a clock that jumps by days, and {row.what}"
        yield row


def _halved(_share: float) -> Iterator[Row]:
    if reason := preload.why_none():
        yield Row(f"reads and writes that do less: not run here: {reason}")
        return
    with in_memory() as folder, Worker(TORCH, preload=preload.build_library(folder, short.SHIM)) as worker:
        yield short.do_less(worker, folder)


def _refused(_share: float) -> Iterator[Row]:
    with Worker() as worker, in_memory() as folder, arena(worker, folder, "mount") as place:
        yield from (fail_calls(place, (call,), every=_EVERY.get(call, 1)) for call in ERRORS)


def _refused_loads(_share: float) -> Iterator[Row]:
    with Worker((*TORCH, *refused_load.IMPORTED)) as worker:
        yield from (refused_load.fail_loads(worker, place, every=_EVERY_LOAD) for place in refused_load.PLACES)


def _mounted(share: float) -> Iterator[Row]:
    if reason := fuse_mount.why_none():
        yield Row(f"a mount of one's own: not run here: {reason}")
        return
    with Worker((*TORCH, *mounted.IMPORTED)) as worker, in_memory() as folder:
        yield mounted.break_mounts(worker, folder, int(_MOUNTS * share))


def _changed(share: float) -> Iterator[Row]:
    with Worker(TORCH) as worker, in_memory() as folder:
        yield change_under_loads(worker, folder, int(_LOADS * share))


def _fuzzed(share: float) -> Iterator[Row]:
    with in_memory() as folder:
        for door in doors(folder):
            yield fuzz(door, int(_INPUTS * share))
        with hub_doors(folder) as found:
            for door in found:
                yield fuzz(door, int(_ANSWERS * share))


def _modelled(share: float) -> Iterator[Row]:
    row = Row("random sequences of 10 steps against a model of the store")
    how = settings(
        max_examples=int(_SEQUENCES * share),
        stateful_step_count=10,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    run_state_machine_as_test(StoreMachine, settings=how)
    row.cases = how.max_examples
    row.ends["as the model says"] = how.max_examples
    yield row


def _astray(_share: float) -> Iterator[Row]:
    with Worker(TORCH) as worker, in_memory() as folder:
        yield roots.lead_astray(worker, folder / "read")
        yield roots.write_astray(worker, folder / "written")


def _piped(_share: float) -> Iterator[Row]:
    with Worker((*TORCH, *piped.IMPORTED)) as worker, in_memory() as folder:
        yield piped.put_pipes(worker, folder)


_PARTS = {
    "networked": _networked,
    "powerless": _powerless,
    "refused": _refused,
    "modelled": _modelled,
    "killed": _killed,
    "crowded": _crowded,
    "refused_loads": _refused_loads,
    "changed": _changed,
    "mounted": _mounted,
    "bounded": _bounded,
    "leaking": _leaking,
    "fuzzed": _fuzzed,
    "astray": _astray,
    "piped": _piped,
    "halved": _halved,
}
"""Those that take longest come first."""


def _run(name: str, share: float) -> tuple[str, list[Row], float]:
    """One part: its name, what it found, and how long it took."""
    begin_s = time.monotonic()
    rows = list(_PARTS[name](share))
    return name, rows, time.monotonic() - begin_s


def main() -> int:
    """Run everything, or some of its parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the random cases")
    parser.add_argument("--part", choices=_PARTS, action="append", help="that alone; may be given again")
    parser.add_argument("--json", type=Path, help="where the rows go as JSON")
    asked = parser.parse_args()
    os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody asks the real hub
    rows: list[Row] = []
    with ProcessPoolExecutor(_AT_ONCE, mp_context=get_context("spawn")) as processes:
        parts = [processes.submit(_run, name, asked.share) for name in asked.part or _PARTS]
        for part in as_completed(parts):
            name, found, seconds = part.result()
            rows += found
            for row in found:
                print(as_text([row]).splitlines()[-1], *row.wrong[:3], sep="\n    ")  # noqa: T201
            print(f"{name}: {seconds:.0f} s", flush=True)  # noqa: T201
    print("\n" + as_text(rows))  # noqa: T201
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(as_json(rows))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
