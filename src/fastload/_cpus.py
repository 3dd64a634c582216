"""How many CPUs this process may use: the one place where they are counted.

A quota (Kubernetes: ``limits.cpu``) takes no CPU away. Sixty-four threads on as many CPUs use up a quota of two
in three milliseconds of each hundred, and then all stand still, those too that give the GPU its copies. So where it is
CPUs that bound a load, because all is in memory already, there are no more threads than the quota has CPUs. Reads of
storage keep the depth that the storage wants: their threads wait for it most of the time, and one thread less is one
read less in flight.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from fastload._cgroup import Cgroup, own_cgroups


@dataclass(frozen=True, slots=True)
class Cpus:
    """What bounds this process."""

    allowed: int
    """Those that it may run on."""
    quota: float | None = None
    """CPUs' time that it may use; None: all that of the allowed ones."""
    limit: str = ""
    """What sets the quota."""

    @property
    def usable(self) -> int:
        """How many threads can compute without being stopped for it: a part of a CPU counts as one."""
        return self.allowed if self.quota is None else max(1, min(self.allowed, math.ceil(self.quota)))


def count_cpus(*, root: str = "") -> Cpus:
    """Ask the kernel, each time: a container may be given more while it runs.

    Args:
        root: where /proc and /sys are; another one in tests.
    """
    allowed = len(os.sched_getaffinity(0))
    quotas = [(quota, cgroup.folder) for cgroup in own_cgroups("cpu", root=root) if (quota := _find_quota(cgroup))]
    if not quotas or min(quotas)[0] >= allowed:
        return Cpus(allowed)
    quota, folder = min(quotas)
    return Cpus(allowed, quota, f"the CPU quota of cgroup {folder}")


def _find_quota(cgroup: Cgroup) -> float | None:
    """In CPUs; None where there is none: v2 says ``max``, v1 -1."""
    if cgroup.is_unified:
        quota_us, _, period_us = cgroup.read("cpu.max").partition(" ")
    else:
        quota_us, period_us = cgroup.read("cpu.cfs_quota_us"), cgroup.read("cpu.cfs_period_us")
    if not quota_us.isdigit() or not period_us.isdigit() or not int(period_us):
        return None
    return int(quota_us) / int(period_us)
