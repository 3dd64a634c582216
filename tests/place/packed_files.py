"""Small checkpoints in memory, and plans of them in steps small enough to see."""

from __future__ import annotations

import functools
import hashlib
import math
import random
from typing import TYPE_CHECKING, NamedTuple

from fastload._format.checkpoint import Checkpoint, FileIdentity, Shard
from fastload._format.dtype import DTYPES
from fastload._format.header import LENGTH_BYTES, parse_header, parse_header_length
from fastload._plan.extent import Extent
from fastload._plan.layout import LayoutRules, lay_out
from fastload._plan.plan import Plan, build_plan
from writing import pack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._plan.plan import LayOut

KIB = 1 << 10
MIB = 1 << 20
PAGE = 4096


class File(NamedTuple):
    """A shard's bytes, and what its header says."""

    stored: bytes
    checkpoint: Checkpoint


@functools.lru_cache(maxsize=16)
def noise(nbytes: int) -> bytes:
    """Bytes of which no two pages are alike."""
    return hashlib.shake_128(nbytes.to_bytes(8, "little")).digest(nbytes)


@functools.cache
def make_shards(count: int, sizes: tuple[tuple[str, int], ...]) -> list[tuple[bytes, dict[str, bytes]]]:
    """So many shards, each as it is stored and its tensors, of these sizes: made once, for all tests of a process.

    No two tensors are alike. To make them takes longer than most of those tests.
    """
    rng = random.Random(count)  # noqa: S311 - content
    shards = [{f"{number}.{name}": rng.randbytes(size) for name, size in sizes} for number in range(count)]
    return [(pack({name: ("U8", [len(data)], data) for name, data in shard.items()}), shard) for shard in shards]


def file_of(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> File:
    """A file of ``{name: (dtype, shape)}``, full of noise (and of zeros and ones where it is BOOL)."""
    contents = {}
    for name, (dtype, shape) in tensors.items():
        data = noise(math.prod(shape) * DTYPES[dtype].bits // 8)
        contents[name] = (dtype, shape, bytes(byte & 1 for byte in data) if dtype == "BOOL" else data)
    stored = pack(contents)
    length = parse_header_length(stored[:LENGTH_BYTES], path="m", file_bytes=len(stored))
    header = parse_header(stored[LENGTH_BYTES : LENGTH_BYTES + length], path="m", file_bytes=len(stored))
    identity = FileIdentity(0, 0, len(stored), 0, 0)
    return File(stored, Checkpoint((Shard("m", "/m", header, identity),), None))


def by_rules(rules: LayoutRules) -> LayOut:
    """The layout that these rules make."""
    return lambda infos, _, first_arena: lay_out(infos, rules, first_arena=first_arena)


ONE_ARENA = by_rules(LayoutRules(start_alignment=64, tensor_alignment=1, arena_bytes=None, own_bytes=None))


def plan_of(file: File, lay: LayOut = ONE_ARENA, *, extent_bytes: int = PAGE) -> Plan:
    """A plan of all tensors whose extents are far smaller than a real one's."""
    plan = build_plan(file.checkpoint, lambda _: True, lay, extent_bytes=4 * MIB)
    size = len(file.stored)
    extents = tuple(Extent(0, at, min(extent_bytes, size - at)) for at in range(0, size, extent_bytes))
    ready_after = tuple((p.info.end - 1) // extent_bytes if p.info.nbytes else -1 for p in plan.placements)
    return Plan(extents, plan.segments, plan.arena_bytes, plan.placements, ready_after)


def stored_bytes(file: File, plan: Plan, number: int) -> bytes:
    """What the tensor of placement ``number`` must hold."""
    info = plan.placements[number].info
    return file.stored[info.begin : info.end]
