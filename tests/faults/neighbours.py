"""What neighbours do to each other: a stopped holder goes on, a model is removed under a load, readers look on."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from arena import REPO, arena, model_files
from results import Row
from stored_models import COMMIT, write_cache
from warming import Tiers, random_bytes, tree

if TYPE_CHECKING:
    from pathlib import Path

    from arena import Arena
    from workers import Done, Job, Worker

_SLOWLY = ("--max-rate", "8Mi")
"""So that the model takes a second and more."""
_LONGEST_S = 1.2


def wake_zombies(worker: Worker, folder: Path, count: int, seed: int = 5) -> Row:
    """Holders stopped at random moments; others take over after the lease's patience; then the holders go on."""
    row = Row("a holder of the lease stopped, taken over from, and let go on")
    rng = random.Random(seed)  # noqa: S311 - moments, no secrets
    with ExitStack() as stack:
        places: list[tuple[Arena, Job]] = []
        for number in range(count):
            (folder / str(number)).mkdir()
            place = stack.enter_context(arena(worker, folder / str(number), "mount"))
            places.append((place, worker.start("forge:command", "warm", REPO, *_SLOWLY, environ=place.environ)))
            time.sleep(0.1 + rng.random() * _LONGEST_S)
            places[-1][1].kill(signal.SIGSTOP)
        takers = [worker.start("forge:command", "warm", REPO, environ=place.environ) for place, _ in places]
        for number, ((place, zombie), taker) in enumerate(zip(places, takers, strict=True)):
            end, wrong = _wake(place, zombie, taker)
            row.add(f"holder {number}", end, wrong or place.find_unhealed())
    return row


def _wake(place: Arena, zombie: Job, taker: Job) -> tuple[str, str | None]:
    """How the zombie ended, and what it has damaged."""
    taken = taker.wait()
    before = _blobs(place)
    zombie.kill(signal.SIGCONT)
    done = zombie.wait()
    end = f"it ends with {done.code}"
    if taken.code:
        return end, f"who took over ends with {taken.code}: {taken.err[-300:]}"
    if not done.is_typed:
        return end, f"the zombie ends with {done.code}: {done.err[-300:]}"
    if touched := _blobs(place) ^ before:
        return end, f"blobs have been touched: {sorted(touched)[:8]}"
    return end, place.find_partial()


def _blobs(place: Arena) -> set[tuple[str, int, int]]:
    """Path, inode and size of the bytes that readers use. The folder of links may be exchanged for an equal one."""
    return {(path, *status[:2]) for path, status in tree(place.tiers.repo(REPO) / "blobs").items()}


def remove_under_loads(worker: Worker, folder: Path, count: int) -> Row:
    """``rm``, ``prune`` and ``warm`` in turn, while another process loads: it gets the right tensors or is told."""
    row = Row("`rm` and `prune` of a model that others load, and `warm` of it again")
    with arena(worker, folder, "mount") as place:
        assert place.warm().code == 0
        digests = {f"layer.{n}": hashlib.sha256(random_bytes(5 << 20, n)).hexdigest() for n in (1, 2)}
        stop = folder / "stop"
        loading = worker.start("polling:load_until", str(stop), str(place.tiers.local), digests)
        for number in range(count):
            words = ("rm", REPO) if number % 2 else ("prune", "--max-bytes", "0")
            done = worker.run(*words, environ=place.environ)
            row.add(
                f"{number}: {words[0]}", f"{words[0]}: exit {done.code}", None if done.is_typed else done.err[-300:]
            )
            if wrong := place.find_unhealed():
                row.wrong.append(f"{number}: {wrong}")
        stop.touch()
        done = loading.wait()
        ends = json.loads(done.out)["ends"] if done.code == 0 else {f"exit {done.code}: {done.err[-300:]}": 1}
        for end, times in ends.items():
            row.cases += times
            row.ends[f"load: {end}"] += times
            if end == "wrong" or end.startswith("exit"):
                row.wrong.append(f"load: {end}")
    return row


def look_on(worker: Worker, folder: Path, count: int, readers: int = 2) -> Row:
    """Readers look ``count`` times in all for a snapshot that is warmed again and again, each time into a new root."""
    row = Row("a reader looks at a snapshot that is being warmed")
    files = model_files(64 << 10)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    tiers = Tiers(folder)
    write_cache(tiers.shared, REPO, COMMIT, files)
    roots = folder / "roots"
    (roots / "0").mkdir(parents=True)
    each = -(-count // readers)
    looking = [worker.start("polling:poll", str(roots), digests, each) for _ in range(readers)]
    environ = {"FASTLOAD_SHARED": str(tiers.shared), "FASTLOAD_TIERS": "local,shared"}
    number = 0
    while not all(job.has_ended for job in looking):
        number += 1
        done = worker.run("warm", REPO, environ=environ | {"FASTLOAD_LOCAL": str(roots / str(number))})
        if done.code:
            row.wrong.append(f"warm {number}: exit {done.code}: {done.err[-300:]}")
            for job in looking:
                job.kill(signal.SIGKILL)
            break
    for job in looking:
        _count_looks(row, job.wait())
    return row


def _count_looks(row: Row, done: Done) -> None:
    if done.code:
        row.add("a reader", f"exit {done.code}", done.err[-300:])
        return
    found = json.loads(done.out)
    row.cases += sum(found["ends"].values())
    row.ends.update(found["ends"])
    row.wrong += found["partial"]
