"""How long a load takes on 1, 2, 4 … ranks of one machine, together and each for itself, from a source of fixed speed.

    python benchmarks/group_scaling.py MODEL --rate 100M --ranks 1 2 4 --rounds 3

The source is this machine's disk, held to a rate by the kernel for all ranks together (a cgroup's limit on reads of the
device), and read past the page cache. So it is what a shared mount or a network disk is to the ranks of a node. Needs
root, and a cgroup controller for block devices (blkio of version 1, or io of version 2).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fastload._settings.values import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_V1, _V2 = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")
_context = multiprocessing.get_context("spawn")


@contextmanager
def held_to(rate: int, path: str) -> Iterator[None]:
    """This process and its children read so many bytes a second at most from the device that ``path`` is on."""
    status = os.stat(path)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    is_v1 = (_V1 / "blkio.throttle.read_bps_device").exists()
    top = _V1 if is_v1 else _V2
    group = top / f"fastload-bench-{os.getpid()}"
    group.mkdir()
    try:
        if is_v1:
            (group / "blkio.throttle.read_bps_device").write_text(f"{device} {rate}")
        else:
            (group / "io.max").write_text(f"{device} rbps={rate}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        for process in (group / "cgroup.procs").read_text().split():  # what multiprocessing has started for itself, too
            (top / "cgroup.procs").write_text(process)
        group.rmdir()


class Ranks:
    """Processes in a gloo group, started once and used for all rounds."""

    def __init__(self, size: int) -> None:
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for rank in range(size):
            ours, theirs = _context.Pipe()
            process = _context.Process(target=_serve, args=(rank, size, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        port = self._pipes[0].recv()
        for pipe in self._pipes[1:]:
            pipe.send(port)
        for pipe in self._pipes:
            pipe.recv()

    def load(self, model: str, *, together: bool) -> tuple[float, int]:
        """Seconds until the last rank has all tensors, and bytes read by all of them."""
        for pipe in self._pipes:
            pipe.send((model, together))
        done = [pipe.recv() for pipe in self._pipes]
        return max(seconds for seconds, _ in done), sum(read for _, read in done)

    def close(self) -> None:
        """End them."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


def _serve(rank: int, size: int, pipe: Connection) -> None:
    import torch.distributed as dist
    from torch._C._distributed_c10d import TCPStore

    import fastload

    if rank == 0:
        store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False)
        pipe.send(store.port)
    else:
        store = TCPStore("127.0.0.1", pipe.recv(), size, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=600))
    pipe.send(None)
    while (asked := pipe.recv()) is not None:
        model, together = asked
        dist.barrier()
        begin_s = time.perf_counter()
        weights = fastload.load(model, reader="direct", group=dist.group.WORLD if together else None)
        pipe.send((time.perf_counter() - begin_s, weights.report.bytes_read))
        del weights


def measure(ranks: Ranks, model: str, rounds: int) -> dict[bool, list[tuple[float, int]]]:
    """Seconds and bytes, together and each for itself, in turns; a first round is not counted."""
    found: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
    for number in range(rounds + 1):
        for together in (True, False):
            taken = ranks.load(model, together=together)
            found[together] += [taken] if number else []
    return found


def main() -> None:
    """Print a line per number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=os.path.abspath, help="a folder with safetensors (make_checkpoint.py makes one)")
    parser.add_argument("--rate", type=parse_size, default=parse_size("100M"), help="of the source, bytes a second")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    size_bytes = sum(path.stat().st_size for path in Path(arguments.model).glob("*.safetensors"))
    print(
        f"{size_bytes / 1e6:,.0f} MB at {arguments.rate / 1e6:,.0f} MB/s: {size_bytes / arguments.rate:.2f} s at best"
    )
    print("ranks  together s (min-max)  read  |  each for itself s (min-max)  read")
    with held_to(arguments.rate, arguments.model):
        for size in arguments.ranks:
            ranks = Ranks(size)
            cells = []
            for taken in measure(ranks, arguments.model, arguments.rounds).values():
                seconds = [each for each, _ in taken]
                spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
                cells.append(f"{statistics.median(seconds):8.2f} ({spread})  {taken[0][1] / size_bytes:.2f}x")
            print(f"{size:5}  {'  |  '.join(cells)}", flush=True)
            ranks.close()


if __name__ == "__main__":
    main()
