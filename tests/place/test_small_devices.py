"""Devices with little memory, and such as share the host's: known before anything is allocated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from fastload._budget import Headroom
from fastload._load.prepare.fit import fit
from fastload._load.target import cuda_target
from fastload._load.target.cuda_target import CudaTarget
from fastload._load.target.keeping import Keeping
from fastload._load.target.staging import Staging
from fastload._place import cuda_memory
from fastload._place.cuda_memory import device_headroom
from fastload.errors import MemoryBudgetError
from packed_files import MIB, file_of, plan_of
from test_device_proof import ON_DEVICE

if TYPE_CHECKING:
    from fastload._plan.plan import Plan

DEVICE = torch.device("cuda", 0)
STAGING = Staging(8, 2, 16 * MIB)


class Sizes:
    """What the device and the host have left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int, host: int, is_shared: bool = False) -> None:
        answers = {
            "mem_get_info": lambda _: (free, 0),
            "memory_reserved": lambda _: 0,
            "memory_allocated": lambda _: 0,
            "get_device_properties": lambda _: SimpleNamespace(is_integrated=is_shared),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        for module in (cuda_target, cuda_memory):
            monkeypatch.setattr(module, "host_headroom", lambda: Headroom("the machine's RAM", host))


@pytest.fixture
def plan() -> Plan:
    """Of 40 MiB."""
    return plan_of(file_of({"a": ("U8", [40 * MIB])}), ON_DEVICE, extent_bytes=4 * MIB)


def target(device_bytes: int | None = None) -> CudaTarget:
    return CudaTarget(DEVICE, Keeping(keeps_all=True, window_bytes=0, cast=None), device_bytes, None)


def test_a_device_with_room_keeps_its_lanes(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    Sizes(monkeypatch, free=40 * MIB + 8 * 16 * MIB, host=4096 * MIB)
    assert fit(target(), plan, STAGING).staging == STAGING


def test_a_small_device_has_fewer_lanes(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """Each has a slot on the device; the model needs the rest."""
    Sizes(monkeypatch, free=40 * MIB + 3 * 16 * MIB, host=4096 * MIB)
    assert fit(target(), plan, STAGING).staging == STAGING._replace(lanes=2)


def test_where_few_lanes_do_not_help_less_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(file_of({name: ("U8", [10 * MIB]) for name in "abcd"}), ON_DEVICE, extent_bytes=4 * MIB)
    passing = CudaTarget(DEVICE, Keeping(keeps_all=False, window_bytes=16 * MIB, cast=None), None, None)
    Sizes(monkeypatch, free=(8 + 2 * 10 + 16) * MIB, host=4096 * MIB)
    fitted = fit(passing, plan, STAGING)
    assert (fitted.staging.lanes, fitted.target.window_bytes) == (1, 8 * MIB)
    assert passing.window_bytes == 16 * MIB
    Sizes(monkeypatch, free=(2 * 10 + 16) * MIB - 1, host=4096 * MIB)
    with pytest.raises(MemoryBudgetError) as caught:
        fit(passing, plan, STAGING)
    assert caught.value.needed_bytes == (2 * 10 + 16) * MIB


def test_what_does_not_fit_beside_one_lane_is_refused(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    Sizes(monkeypatch, free=40 * MIB + 16 * MIB - 1, host=4096 * MIB)
    with pytest.raises(MemoryBudgetError, match="the free memory of cuda:0") as caught:
        fit(target(), plan, STAGING)
    assert caught.value.needed_bytes == 56 * MIB


def test_the_setting_binds_as_the_device_does(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    Sizes(monkeypatch, free=4096 * MIB, host=4096 * MIB)
    assert fit(target(80 * MIB), plan, STAGING).staging.lanes == 2
    with pytest.raises(MemoryBudgetError, match="the setting device_bytes"):
        fit(target(50 * MIB), plan, STAGING)


def test_memory_that_is_the_hosts_counts_once_for_both(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """What the device says is free does not count the page cache; what is staged on the host is taken from it too."""
    Sizes(monkeypatch, free=1 * MIB, host=40 * MIB + 2 * 3 * 16 * MIB, is_shared=True)
    assert device_headroom(DEVICE, None) == Headroom("the machine's RAM", 136 * MIB)
    assert fit(target(), plan, STAGING).staging.lanes == 2
    Sizes(monkeypatch, free=4096 * MIB, host=40 * MIB + 3 * 16 * MIB - 1, is_shared=True)
    with pytest.raises(MemoryBudgetError, match="the machine's RAM"):
        fit(target(), plan, STAGING)


def test_what_stays_on_the_host_takes_the_hosts_memory_and_none_of_the_devices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of(file_of({"a": ("U8", [40 * MIB]), "b": ("U8", [8 * MIB])}), ON_DEVICE, extent_bytes=4 * MIB)
    keeping = Keeping(keeps_all=False, window_bytes=4 * MIB, cast=None, host_above_bytes=8 * MIB)
    bounded = CudaTarget(DEVICE, keeping, None, None)
    one_lane, needed_bytes = STAGING._replace(lanes=1), (8 + 16) * MIB
    Sizes(monkeypatch, free=needed_bytes, host=2 * 40 * MIB + one_lane.bytes)
    assert fit(bounded, plan, one_lane).staging == one_lane
    Sizes(monkeypatch, free=needed_bytes - 1, host=4096 * MIB)
    with pytest.raises(MemoryBudgetError, match="the free memory of cuda:0"):
        fit(bounded, plan, one_lane)
    Sizes(monkeypatch, free=4096 * MIB, host=2 * 40 * MIB + one_lane.bytes - 1)
    with pytest.raises(MemoryBudgetError, match="the machine's RAM"):
        fit(bounded, plan, one_lane)
