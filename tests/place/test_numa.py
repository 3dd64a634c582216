"""Which CPUs are near a device, on made-up machines; and that a thread goes there alone."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch

from fastload._place import numa
from fastload._place.numa import find_near_cpus, go_near, parse_cpus
from fastload._read.cuda_driver import CudaDriver

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "0000:1B:00.0"


def made(root: Path, node: str, cpulist: str) -> str:
    """A machine whose device is on ``node``."""
    for path, text in (
        ("sys/bus/pci/devices/0000:1b:00.0/numa_node", node),
        (f"sys/devices/system/node/node{node}/cpulist", cpulist),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return str(root)


@pytest.mark.parametrize(
    ("text", "cpus"), [("", set()), ("3", {3}), ("0-3", {0, 1, 2, 3}), ("0-1,8-9,15", {0, 1, 8, 9, 15})]
)
def test_cpus_as_the_kernel_spells_them(text: str, cpus: set[int]) -> None:
    assert parse_cpus(text) == cpus


def test_the_devices_node_and_no_more_than_was_allowed(tmp_path: Path) -> None:
    root = made(tmp_path, "1", "8-15")
    assert find_near_cpus(ADDRESS, set(range(16)), root=root) == set(range(8, 16))
    assert find_near_cpus(ADDRESS, {7, 8, 9}, root=root) == {8, 9}
    assert find_near_cpus(ADDRESS, {8, 9}, root=root) == set(), "where we may run is near already"
    assert find_near_cpus(ADDRESS, {1, 2}, root=root) == set(), "far is better than nowhere"


@pytest.mark.parametrize("node", ["-1", ""])
def test_a_machine_with_one_node(tmp_path: Path, node: str) -> None:
    assert find_near_cpus(ADDRESS, {0, 1}, root=made(tmp_path, node, "0-1")) == set()
    assert find_near_cpus("0000:99:00.0", {0, 1}, root=str(tmp_path)) == set()


class Driver:
    """CUDA's, of a device at that address."""

    code = 0

    def cuDeviceGet(self, *_: Any) -> int:  # noqa: N802 - as CUDA calls it
        return self.code

    def cuDeviceGetPCIBusId(self, text: Any, room: Any, _: Any) -> int:  # noqa: N802 - as CUDA calls it
        assert room.value >= len(ADDRESS) + 1
        text.value = ADDRESS.encode()
        return 0


def test_only_the_calling_thread_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.sched_getaffinity(0)
    near = {min(allowed)}
    asked: list[str] = []

    def find(address: str, _: set[int]) -> set[int]:
        asked.append(address)
        return near

    monkeypatch.setattr(numa, "find_near_cpus", find)
    monkeypatch.setattr(numa, "load_driver", lambda: CudaDriver(Driver()))
    found: list[set[int]] = []

    def work() -> None:
        go_near(torch.device("cuda", 0))
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (asked, found) == ([ADDRESS], [near])
    assert os.sched_getaffinity(0) == allowed


def test_a_driver_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Driver()
    failing.code = 101
    monkeypatch.setattr(numa, "load_driver", lambda: CudaDriver(failing))
    go_near(torch.device("cuda", 0))
