"""What a device did for a lane, by the device's clock, in a trace."""

from __future__ import annotations

import time

import pytest

from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import allocate_on
from fastload._plan.layout import LayoutRules
from fastload._trace import Trace
from packed_files import PAGE, by_rules, file_of, plan_of
from pretended_cuda import DEVICE, Machine

RULES = by_rules(LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=64 << 20, own_bytes=1 << 20))


@pytest.mark.parametrize("seed", range(5))
def test_every_extent_has_its_copies_in_the_streams_lane(machine: Machine, seed: int) -> None:
    machine.reseed(seed)
    file = file_of({f"t{n}": ("F32", [2000]) for n in range(4)})
    plan = plan_of(file, RULES)
    trace = Trace()
    begin_s = time.perf_counter()
    placer = CudaPlacer(
        plan, Supply(lambda arena: allocate_on(DEVICE, plan.arena_bytes[arena])), DEVICE, slot_bytes=PAGE, cast=None
    )
    lane = placer.open_lane(trace)
    for extent in plan.extents:
        (buffer,) = lane.buffers_for(extent, PAGE)
        buffer[: extent.length] = file.stored[extent.offset : extent.end]
        lane.place(lambda: None)
    assert not trace.spans
    lane.close()
    assert {span.lane for span in trace.spans} == {"cuda:0, stream of MainThread"}
    assert [span.name for span in trace.spans] == ["host to device", "scatter"] * len(plan.extents)
    times = [begin_s, *(at for span in trace.spans for at in (span.begin_s, span.end_s)), time.perf_counter()]
    assert times == sorted(times)
