"""What ranks of one machine take together, weighed against what there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastload._budget import Headroom, Room
from fastload._load.group.room import check_rooms, claims_of
from fastload.errors import MemoryBudgetError

RAM = Headroom("the machine's RAM", 100, "RAM")
DEVICE = Headroom("the free memory of cuda:0", 100, "GPU-1")


def test_all_of_a_limit_are_added_up() -> None:
    rooms = [Room(40, RAM, "Free some")]
    check_rooms(rooms, [claims_of(rooms), {"RAM": 60}])
    with pytest.raises(MemoryBudgetError, match="101 bytes, but the machine's RAM, which 3 ranks of the group share,"):
        check_rooms(rooms, [claims_of(rooms), {"RAM": 60}, {"RAM": 1}])


def test_ranks_that_are_held_to_other_limits_are_not() -> None:
    """Another GPU, another container of the pod, a setting of this process's own."""
    cgroup = Headroom("the memory limit of cgroup /sys/fs/cgroup", 100, "cgroup 7")
    setting = Headroom("the setting device_bytes", 100)
    rooms = [Room(90, DEVICE, ""), Room(90, cgroup, ""), Room(90, setting, "")]
    others = [{"GPU-2": 90, "RAM": 90}, {"cgroup 8": 90}]
    check_rooms(rooms, [claims_of(rooms), *others])
    assert set(claims_of(rooms)) == {"GPU-1", "cgroup 7"}


def test_ranks_on_one_device_share_it() -> None:
    rooms = [Room(60, DEVICE, "Free some"), Room(5, RAM, "")]
    with pytest.raises(MemoryBudgetError, match="the free memory of cuda:0, which 2 ranks"):
        check_rooms(rooms, [claims_of(rooms), {"GPU-1": 60}])


def test_what_torch_holds_in_reserve_is_its_processes_own() -> None:
    """Each of two has 50 in reserve beside the 100 that are free: both may take 100."""
    rooms = [Room(100, replace(DEVICE, available_bytes=150, own_bytes=50), "")]
    check_rooms(rooms, [claims_of(rooms), claims_of(rooms)])
    with pytest.raises(MemoryBudgetError):
        check_rooms(rooms, [claims_of(rooms), {"GPU-1": 51}])


def test_a_device_whose_memory_is_the_hosts_is_counted_once() -> None:
    rooms = [Room(60, RAM, ""), Room(20, RAM, "")]
    assert claims_of(rooms) == {"RAM": 60}


def test_a_part_of_a_machine() -> None:
    assert RAM.part_of(1) == RAM
    assert RAM.part_of(3) == replace(RAM, available_bytes=33)
