"""What ranks do in the tests of group loading; each function runs on all of them at once."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

import fastload
from fastload.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload.report import Report

SMALL_WINDOW = Options(staging_bytes="16Mi")


def fingerprints(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Dtype, shape and bytes of each, in short."""
    return {
        name: f"{t.dtype} {tuple(t.shape)} "
        + hashlib.sha256(t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, t in tensors.items()
    }


def load(rank: int, path: str, **keywords: Any) -> tuple[dict[str, str], Report]:
    weights = fastload.load(path, group=dist.group.WORLD, **keywords)
    return fingerprints(weights), weights.report


def load_with(rank: int, path: str, keywords: dict[str, Any]) -> tuple[dict[str, str], Report]:
    return load(rank, path, **keywords)


def load_by_rank(rank: int, path: str, keywords: list[dict[str, Any]]) -> tuple[dict[str, str], Report]:
    """Other keywords on each rank."""
    return load(rank, path, **keywords[rank])


def stream(rank: int, path: str, keywords: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    got = dict(fastload.stream(path, group=dist.group.WORLD, **keywords))
    return list(got), fingerprints(got)


def stream_unevenly(rank: int, path: str) -> dict[str, str]:
    """Each rank pauses at other tensors."""
    got = {}
    for number, (name, tensor) in enumerate(fastload.stream(path, group=dist.group.WORLD, options=SMALL_WINDOW)):
        if number % dist.get_world_size() == rank:
            time.sleep(0.05 * rank)
        got[name] = tensor
    return fingerprints(got)


def stream_and_leave(rank: int, path: str, leaver: int, after: int) -> dict[str, str]:
    """One rank closes its stream early."""
    got = {}
    with fastload.stream(path, group=dist.group.WORLD, options=SMALL_WINDOW) as tensors:
        for number, (name, tensor) in enumerate(tensors):
            if rank == leaver and number == after:
                break
            got[name] = tensor
    return fingerprints(got)


def stream_and_exit(rank: int, path: str, leaver: int, after: int) -> dict[str, str]:
    """One rank closes its stream early, and its process ends at once."""
    got = stream_and_leave(rank, path, leaver, after)
    if rank == leaver:
        os._exit(0)
    return got


def stream_and_signal(rank: int, path: str, victim: int, number: int) -> float:
    """One rank is killed or stopped in the midst of it; the others say after how long they noticed."""
    since_s = time.monotonic()
    try:
        for position, _ in enumerate(fastload.stream(path, group=dist.group.WORLD, options=SMALL_WINDOW)):
            if rank == victim and position == 2:
                os.kill(os.getpid(), number)
            since_s = time.monotonic()
    except fastload.GroupError as error:
        error.add_note(f"{time.monotonic() - since_s}")
        raise
    return 0.0


def survive(rank: int, ranks: list[int]) -> float:
    """What the caller's own groups still do, after one of the ranks has failed."""
    return reduce_over(rank, ranks)


def make_group(rank: int, ranks: list[int]) -> None:
    """Keeps a group of some of the ranks, as a caller would have made it before."""
    _groups[tuple(ranks)] = dist.new_group(ranks)


_groups: dict[tuple[int, ...], Any] = {}


def reduce_over(rank: int, ranks: list[int]) -> float:
    total = torch.tensor([float(rank)])
    if rank in ranks:
        dist.all_reduce(total, group=_groups.get(tuple(ranks)))
    return float(total)


def fail_while_streaming(rank: int, path: str, victim: int) -> None:
    """One rank's caller stops with an error of its own in ``next``: its callback raises."""

    def progress(done: int, total: int) -> None:
        if rank == victim and done:
            raise RuntimeError("no more")

    fastload.load(path, group=dist.group.WORLD, progress=progress)


def send_stop(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def load_path_of_rank(rank: int, paths: list[str]) -> None:
    """Each rank loads from a path of its own."""
    load(rank, paths[rank])
