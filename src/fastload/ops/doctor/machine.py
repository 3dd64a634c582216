"""Limits of this machine and container that a load runs into."""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._budget import host_headroom
from fastload._cpus import count_cpus
from fastload._system_file import read_text
from fastload.ops.doctor.finding import NOTE, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECCOMP = {"0": "off", "1": "strict", "2": "a filter"}
_FEW_FILES = 1024
_SMALL_SHM_BYTES = 1 << 30  # 1 GiB
_STATUS_LINE = re.compile(r"^(\w+):\t(.*)$", re.MULTILINE)
_SHM = "/dev/shm"  # noqa: S108 - looked at, not written
_CHOSEN = re.compile(r"\[(\w+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What bounds this process."""

    cpus: int
    """That it may run on."""
    cpu_quota: float | None
    """How many of them it may keep busy; None: all."""
    cpu_limit: str
    """What sets that quota; empty: nothing."""
    available_bytes: int
    memory_limit: str
    """What sets that bound."""
    memlock_bytes: int | None
    """RLIMIT_MEMLOCK; None: no limit. CUDA's pinned memory does not count against it."""
    open_files: int
    seccomp: str
    no_new_privileges: bool
    shm_bytes: int | None
    """Of /dev/shm; None: there is none."""
    huge_pages: str
    """Transparent ones: always, madvise, never; empty where the kernel does not say."""
    has_udev: bool
    """/run/udev, by which cuFile finds the disk below a file system."""


def look_at_machine(*, root: str = "") -> Machine:
    """Ask the kernel.

    Args:
        root: where /proc, /sys, /dev and /run are; another one in tests.
    """
    headroom, cpus = host_headroom(root=root), count_cpus(root=root)
    status = parse_status(read_text(f"{root}/proc/self/status"))
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return Machine(
        cpus=cpus.allowed,
        cpu_quota=cpus.quota,
        cpu_limit=cpus.limit,
        available_bytes=headroom.available_bytes,
        memory_limit=headroom.limit,
        memlock_bytes=None if memlock == resource.RLIM_INFINITY else memlock,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        seccomp=_SECCOMP.get(status.get("Seccomp", ""), "not known"),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        shm_bytes=_size_of(root + _SHM),
        huge_pages=parse_chosen(read_text(f"{root}/sys/kernel/mm/transparent_hugepage/enabled")),
        has_udev=os.path.isdir(f"{root}/run/udev/data"),
    )


def parse_status(text: str) -> dict[str, str]:
    """``/proc/self/status`` by field."""
    return dict(_STATUS_LINE.findall(text))


def parse_chosen(text: str) -> str:
    """``madvise`` of ``always [madvise] never``."""
    match = _CHOSEN.search(text)
    return match[1] if match else ""


def judge_machine(machine: Machine) -> Iterator[Finding]:
    """What of that slows a load, or ends a server."""
    if machine.huge_pages == "never":
        yield Finding(
            severity=WARNING,
            what="transparent huge pages are off",
            why="fresh memory comes in 4 KiB pages, which takes several times as long as filling it",
            cure="On the node: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
    if machine.cpu_quota is not None:
        yield Finding(
            severity=NOTE,
            what=f"of {machine.cpus} CPUs, {machine.cpu_limit} gives {machine.cpu_quota:g}",
            why="so many threads copy and digest what is in memory. Reads of storage have as many as that wants; where "
            "they use up the quota, all threads stand still for the rest of each tenth of a second",
            cure="resources: {limits: {cpu: 8}}, or requests alone; with Docker: --cpus 8",
        )
    if machine.open_files < _FEW_FILES:
        yield Finding(
            severity=WARNING,
            what=f"this process may have {machine.open_files} files open",
            why="sockets, shards and libraries share them: loads of many shards end with 15",
            cure="ulimit -n 4096, or LimitNOFILE= of the service",
        )
    if machine.shm_bytes is not None and machine.shm_bytes < _SMALL_SHM_BYTES:
        yield Finding(
            severity=NOTE,
            what=f"{_SHM} has {machine.shm_bytes >> 20} MiB",
            why="tensor parallel workers exchange messages there; containers get 64 MiB, and NCCL then fails or crawls",
            cure="volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 8Gi}}], volumeMounts: [{name: shm, "
            "mountPath: /dev/shm}]; count it into the memory limit",
        )


def _size_of(path: str) -> int | None:
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    return space.f_blocks * space.f_frsize
