"""Ranks of a node that each read the whole checkpoint: through one page cache, and not all at the same place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fastload._budget import host_headroom
from fastload.options import decide_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._load.inspection import Inspection
    from fastload.options import Options, Settings

    Wanted = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Rank:
    """This process among those that load the same model."""

    number: int = 0
    count: int = 1


def find_rank() -> Rank:
    """By torch.distributed, which vLLM has set up where there is more than one."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return Rank()
    return Rank(torch.distributed.get_rank(), torch.distributed.get_world_size())


def share_pages(rank: Rank, options: Options) -> Options:
    """``options`` by which ranks find in the page cache what another one has read; O_DIRECT would read it for each."""
    if rank.count > 1 and decide_settings(options, {}).reader == "auto":
        return replace(options, reader="buffered")
    return options


def stagger(rank: Rank, inspection: Inspection, wanted: Wanted | None) -> list[Wanted | None]:
    """What to load one after another: each rank begins at another shard, and finds the others' in the page cache.

    Whole shards, so that each can be proven. Where the cache cannot hold them all, ranks go side by side instead:
    who is ahead reads, who follows finds it.
    """
    names = [shard.name for shard in inspection.shards]
    first = rank.number * len(names) // rank.count
    total_bytes = sum(shard.nbytes for shard in inspection.shards)
    if first == 0 or total_bytes > host_headroom().available_bytes // 2:
        return [wanted]
    return [_only_of(frozenset(part), inspection, wanted) for part in (names[first:], names[:first])]


def leave_copy(parts: Sequence[Wanted | None], settings: Settings) -> Settings:
    """``settings`` by which a rank that loads in ``parts`` leaves the copy on the local tier to the rank that does not.

    No load of a part can publish a copy, but while it lasts, nobody else may begin one.
    """
    return replace(settings, write_through="off") if len(parts) > 1 else settings


def _only_of(shards: frozenset[str], inspection: Inspection, wanted: Wanted | None) -> Wanted:
    def is_wanted(name: str) -> bool:
        return inspection.tensors[name].shard in shards and (wanted is None or wanted(name))

    return is_wanted
