"""Threads and pinned memory on the device's own NUMA node: across sockets a copy to it may have a third of the rate.

A page lies on the node of the thread that touches it first, and pinned ones never move; so a lane's thread goes to the
device's node before it pins its slots.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from fastload._read.cuda_driver import load_driver
from fastload._system_file import read_line
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    import torch


def go_near(device: torch.device) -> None:
    """Let the calling thread run on the CPUs of the node of ``device`` only, where there are several nodes."""
    try:
        address = load_driver().pci_address(device.index)
    except UnsupportedError:
        return  # a device without a place on a PCI bus is near or far from nothing
    cpus = find_near_cpus(address, os.sched_getaffinity(0))
    if cpus:
        with contextlib.suppress(OSError):  # a sandbox that forbids it: slower, not wrong
            os.sched_setaffinity(0, cpus)


def find_near_cpus(address: str, allowed: set[int], *, root: str = "") -> set[int]:
    """Those of ``allowed`` on the node of the device at this PCI address; none where it makes no difference.

    Args:
        address: such as ``0000:1b:00.0``.
        allowed: what this thread may use: another's limits are kept.
        root: where /sys is; another one in tests.
    """
    node = read_line(f"{root}/sys/bus/pci/devices/{address.lower()}/numa_node")
    if not node.isdigit():  # -1: the machine has one node, or does not tell
        return set()
    near = parse_cpus(read_line(f"{root}/sys/devices/system/node/node{node}/cpulist")) & allowed
    return near if near != allowed else set()


def parse_cpus(text: str) -> set[int]:
    """The kernel's spelling of a set of CPUs, such as ``0-15,32-47``."""
    ranges = (part.partition("-") for part in text.split(",") if part)
    return {cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)}
