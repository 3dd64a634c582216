"""What the numbers of a run depend on: the machine, the file system, the versions, and who else was busy."""

from __future__ import annotations

import os
import platform
import time

from fastload._cpus import count_cpus
from fastload._system_file import read_lines, read_text
from fastload.errors import escaped
from fastload.ops.doctor.gpu import version_of
from fastload.ops.doctor.machine import parse_chosen
from fastload.ops.doctor.mountinfo import find_mount, parse_mountinfo

_PACKAGES = ("fastload-llm", "torch", "safetensors", "runai-model-streamer", "fastsafetensors", "instanttensor")
_QUIET_CPUS = 0.1


def describe_machine(folder: str) -> dict[str, str]:
    """Facts for the head of a table."""
    cpu = next((line.split(":")[1].strip() for line in read_lines("/proc/cpuinfo") if "model name" in line), "unknown")
    cpus = count_cpus()
    huge_pages = parse_chosen(read_text("/sys/kernel/mm/transparent_hugepage/enabled"))
    memory = int(read_lines("/proc/meminfo")[0].split()[1]) / (1 << 20)
    return {
        "cpu": f"{cpus.allowed} x {cpu}" + (f", of which {cpus.limit} gives {cpus.quota:g}" if cpus.quota else ""),
        "memory": f"{memory:.1f} GiB, huge pages: {huge_pages or 'none'}",
        "storage": _find_file_system(folder),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version_of(name) or '(not installed)'}" for name in _PACKAGES),
    }


def read_others_cpu_s() -> float:
    """CPU seconds that all others, the host too, have used up so far. Own children count once they have ended."""
    ticks = [int(field) for field in read_lines("/proc/stat")[0].split()[1:9]]
    idle_ticks = ticks[3] + ticks[4]
    return (sum(ticks) - idle_ticks) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def wait_until_quiet(patience_s: float) -> None:
    """Return when others have kept less than a tenth of a CPU busy for a second; after ``patience_s`` in any case."""
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        begin_s = read_others_cpu_s()
        time.sleep(1)
        if read_others_cpu_s() - begin_s < _QUIET_CPUS:
            return


def _find_file_system(folder: str) -> str:
    """The type of the innermost mount that holds ``folder``."""
    mounts = parse_mountinfo(read_text("/proc/self/mountinfo", errors="surrogateescape"))  # as Python has paths
    mount = find_mount(mounts, os.path.realpath(folder))
    return f"{mount.kind} on {escaped(os.path.basename(mount.source))}" if mount else "unknown"
