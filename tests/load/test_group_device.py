"""What comes from other ranks on its way onto a device, the pretended one: a part of an extent, which is sent on."""

from __future__ import annotations

import ctypes
import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastload._load.read.exchange import select
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import allocate_on
from fastload._plan.cut import narrow
from fastload._plan.extent import Extent
from fastload._plan.layout import LayoutRules
from fastload._plan.plan import Plan, build_plan
from fastload._plan.ranges import clip, unite
from packed_files import MIB, PAGE, by_rules, file_of
from pretended_cuda import DEVICE, pretended_cuda, range_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._format.header import TensorInfo
    from packed_files import File

    Rows = tuple[int, int]

SMALL = by_rules(LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=2 * PAGE, own_bytes=PAGE))
ROW_BYTES = 1500
"""So that rows, pages and extents begin at other places."""
STALE = 0xAA


def plan_of_part(file: File, kept: Mapping[str, Rows], extent_bytes: int) -> Plan:
    """As a rank has it that keeps these rows; extents are the group's, and far smaller than real ones."""

    def narrowed(info: TensorInfo) -> TensorInfo:
        return narrow(info, kept[info.name])

    plan = build_plan(file.checkpoint, kept.__contains__, SMALL, extent_bytes=4 * MIB, narrow=narrowed)
    size = len(file.stored)
    extents = tuple(Extent(0, at, min(extent_bytes, size - at)) for at in range(0, size, extent_bytes))
    ready_after = tuple((p.info.end - 1) // extent_bytes if p.info.nbytes else -1 for p in plan.placements)
    return Plan(extents, plan.segments, plan.arena_bytes, plan.placements, ready_after, plan.spread)


rows = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: (min(pair), max(pair)))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    lane_count=st.integers(1, 3),
    extent_pages=st.integers(1, 3),
    kept=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), rows, min_size=1),
    behind=st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 9000)), max_size=3),
)
def test_what_does_not_come_spoils_nothing_and_what_is_passed_on_is_right(
    seed: int, lane_count: int, extent_pages: int, kept: dict[str, Rows], behind: list[tuple[int, int]]
) -> None:
    """A slot holds, where nothing came, what an earlier extent left there. Some of what comes is for ranks behind."""
    rng = random.Random(seed)  # noqa: S311 - a schedule
    file = file_of({name: ("U8", [9, ROW_BYTES]) for name in "abcd"})
    plan = plan_of_part(file, kept, extent_pages * PAGE)
    theirs = unite((begin, min(begin + length, len(file.stored))) for begin, length in behind)
    comes = unite([*plan.spread[0], *theirs])
    with pytest.MonkeyPatch.context() as monkeypatch, pretended_cuda(monkeypatch, rng) as machine:
        supply = Supply(lambda arena: allocate_on(DEVICE, plan.arena_bytes[arena]))
        placer = CudaPlacer(plan, supply, DEVICE, slot_bytes=extent_pages * PAGE, cast=None)
        lanes = [placer.open_lane() for _ in range(lane_count)]
        for extent in plan.extents:
            if not clip(comes, extent.offset, extent.end):
                continue
            lane = rng.choice(lanes)
            buffers = lane.buffers_for(extent, 1)
            for buffer in buffers:
                buffer[:] = bytes([STALE]) * len(buffer)
            _receive(file, extent, select(buffers, extent, clip(comes, extent.offset, extent.end)), comes)
            sent = b"".join(bytes(part) for part in select(buffers, extent, clip(theirs, extent.offset, extent.end)))
            assert sent == _stored(file, clip(theirs, extent.offset, extent.end))
            lane.place(lambda: None)
        for lane in lanes:
            lane.close()
        placer.catch_up()
        taken = [placer.take(number) for number in range(len(plan.placements))]
        copies = [torch.empty(tensor.nbytes, dtype=torch.uint8) for tensor in taken]
        for tensor, copy in zip(taken, copies, strict=True):
            if tensor.nbytes:
                machine.current.submit(partial(_read, range_of(tensor).begin, copy), range_of(tensor))
        placer.finish()
        machine.run_all()
    for placement, copy in zip(plan.placements, copies, strict=True):
        assert copy.numpy().tobytes() == file.stored[placement.info.begin : placement.info.end]


def _receive(file: File, extent: Extent, parts: list[memoryview], comes: tuple[tuple[int, int], ...]) -> None:
    content = _stored(file, clip(comes, extent.offset, extent.end))
    assert sum(map(len, parts)) == len(content)
    for part in parts:
        part[:], content = content[: len(part)], content[len(part) :]


def _stored(file: File, ranges: tuple[tuple[int, int], ...]) -> bytes:
    return b"".join(file.stored[begin:end] for begin, end in ranges)


def _read(address: int, copy: torch.Tensor) -> None:
    ctypes.memmove(copy.data_ptr(), address, copy.nbytes)
