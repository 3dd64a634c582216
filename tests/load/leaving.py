"""What ranks do in tests of those that close their stream early, of a model with digests of whole files alone."""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

import fastload
from fastload._load.stream import ending, stream, summary
from models import MIB
from ranks import fingerprints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload.report import RankReport, Report

FIRST_BLOCK = frozenset({"1.0", "1.1", "1.2"})
"""The tensors of the first file that lie in its first block alone."""
_REST_S = 1.0


def keep_front(name: str) -> bool:
    """What a rank keeps for which the last block of the first file is of no use."""
    return name in FIRST_BLOCK or name.startswith("2.")


def keep_all_but_one(name: str) -> bool:
    """All of the first file, and not all there is."""
    return name != "2.4"


def leave(rank: int, ref: str, keywords: list[dict[str, Any]], leaver: int) -> tuple[dict[str, str], Report]:
    """One rank closes its stream when all have a tensor; it is slow to read the second blocks, for the others then."""
    if rank == leaver:
        _rest_before(4 * MIB)
    got = {}
    with fastload.stream(ref, group=dist.group.WORLD, **keywords[rank]) as tensors:
        for name, tensor in tensors:
            got[name] = tensor
            if len(got) == 1:
                dist.barrier()
                if rank == leaver:
                    break
    return fingerprints(got), tensors.report


def leave_at_once(rank: int, ref: str, keywords: list[dict[str, Any]], leaver: int) -> Report:
    """One rank closes its stream before it has taken a tensor, and says late how far it is."""
    if rank == leaver:
        _rest_before_describing()
    with fastload.stream(ref, group=dist.group.WORLD, **keywords[rank]) as tensors:
        for _ in tensors if rank != leaver else ():
            pass
    return tensors.report


def leave_in_turn(rank: int, ref: str, keywords: list[dict[str, Any]], leavers: list[int]) -> Report:
    """Some ranks close their streams when they have a tensor."""
    with fastload.stream(ref, group=dist.group.WORLD, **keywords[rank]) as tensors:
        for _ in tensors:
            if rank in leavers:
                break
    return tensors.report


def leave_without_threads(rank: int, ref: str, keywords: list[dict[str, Any]], leaver: int) -> None:
    """When one rank closes its stream, the system grants it no thread that could go on for the others."""
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    try:
        with fastload.stream(ref, group=dist.group.WORLD, **keywords[rank]) as tensors:
            for _ in tensors:
                if rank == leaver:
                    resource.setrlimit(resource.RLIMIT_AS, (0, unlimited[1]))
                    break
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)


def leave_and_end(rank: int, ref: str, keywords: list[dict[str, Any]], leaver: int) -> tuple[dict[str, str], Report]:
    """And its process ends at once."""
    got = leave(rank, ref, keywords, leaver)
    if rank == leaver:
        os._exit(0)
    return got


def take_until_it_fails(rank: int, ref: str, keywords: list[dict[str, Any]]) -> None:
    """The error says after how many tensors; the second blocks come late."""
    _rest_before(4 * MIB)
    count = 0
    try:
        for _ in fastload.stream(ref, group=dist.group.WORLD, **keywords[rank]):
            count += 1
    except fastload.FastloadError as error:
        error.add_note(f"after {count} tensors")
        raise


def _rest_before_describing() -> None:
    """So long that something was read."""
    describe = summary.describe_rank

    def rest(*args: Any) -> RankReport:
        time.sleep(_REST_S / 2)
        return describe(*args)

    for module in (stream, ending):
        setattr(module, "describe_rank", rest)  # noqa: B010 - as below


def _rest_before(offset: int) -> None:
    """From now on, in this process, reads from ``offset`` on take long."""
    read = os.preadv

    def rest(descriptor: int, buffers: Sequence[Any], at: int, *flags: int) -> int:
        if at >= offset:
            time.sleep(_REST_S)
        return read(descriptor, buffers, at, *flags)

    setattr(os, "preadv", rest)  # noqa: B010 - mypy would compare the kinds of buffers
