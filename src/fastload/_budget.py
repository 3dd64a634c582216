"""How much memory there is, before anything is allocated."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from fastload.errors import MemoryBudgetError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MEMORY_PER_JSON_BYTE = 17
"""Measured of tests/format/large.py at 30 and 99 MB: 11 for a header of usual names, at most 17, valid or not."""
_UNWEIGHED_JSON_BYTES = 4 << 20  # 4 MiB: more than the headers of real shards, and not worth asking the kernel


@dataclass(frozen=True, slots=True)
class Headroom:
    """Bytes that one limit leaves."""

    limit: str
    available_bytes: int
    pool: str = field(default="", compare=False)
    """Tells it from other limits on this machine, since other processes may be held to it too; empty: none are."""
    own_bytes: int = field(default=0, compare=False)
    """Of these, what this process holds already, so that no other one could take it."""

    def part_of(self, ranks: int) -> Headroom:
        """What each of the ``ranks`` on this machine may have of it."""
        return replace(self, available_bytes=self.available_bytes // ranks)


class Room(NamedTuple):
    """What a load takes of one kind of memory, and what there is."""

    needed_bytes: int
    headroom: Headroom
    hint: str

    def check(self) -> None:
        """Raise ``MemoryBudgetError`` where it is too little."""
        check_budget(self.needed_bytes, self.headroom, self.hint)


def host_headroom(*, root: str = "") -> Headroom:
    """The tightest of RAM and the cgroups this process is in.

    Page cache counts as available: the kernel drops it before it refuses memory.

    Args:
        root: where /proc and /sys are; another one in tests.
    """
    return min(_host_limits(root), key=lambda headroom: headroom.available_bytes)


def check_budget(needed_bytes: int, headroom: Headroom, hint: str) -> None:
    """Raise ``MemoryBudgetError`` where ``needed_bytes`` exceed ``headroom``."""
    if needed_bytes > headroom.available_bytes:
        raise MemoryBudgetError(needed_bytes, max(0, headroom.available_bytes), headroom.limit, hint)


def check_json_room(json_bytes: int, path: str) -> None:
    """Raise ``MemoryBudgetError`` where to parse the ``json_bytes`` that ``path`` has would take more than there is.

    Strangers write them, and say themselves how many there are.
    """
    if json_bytes > _UNWEIGHED_JSON_BYTES:
        hint = f"{quoted(path)} has {json_bytes:,} bytes of JSON. Raise the memory limit, if you trust whoever made it"
        check_budget(_MEMORY_PER_JSON_BYTE * json_bytes, host_headroom(), hint)


def _host_limits(root: str) -> Iterator[Headroom]:
    fields = dict(line.split(":", 1) for line in _read_lines(f"{root}/proc/meminfo"))
    if "MemAvailable" in fields:
        yield Headroom("the machine's RAM", int(fields["MemAvailable"].split()[0]) << 10, _RAM)
    else:
        yield Headroom("the machine's RAM", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE"), _RAM)
    for folder, names in _own_cgroups(root):
        headroom = _cgroup_headroom(folder, *names)
        if headroom is not None:
            yield headroom


_RAM = "RAM"
_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))


def _own_cgroups(root: str) -> Iterator[tuple[str, tuple[str, str, tuple[str, ...]]]]:
    """The folders of this process's memory cgroup and of those above it; each may have a limit.

    In a container the path may be the host's, and only the root of the mount is visible: folders that are not there are
    skipped.
    """
    for line in _read_lines(f"{root}/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        base, names = (f"{root}/sys/fs/cgroup/memory", _V1) if controllers else (f"{root}/sys/fs/cgroup", _V2)
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts), -1, -1):
            yield os.path.join(base, *parts[:depth]), names


def _cgroup_headroom(folder: str, limit: str, usage: str, cached: Iterable[str]) -> Headroom | None:
    ceiling, used = (next(_read_lines(f"{folder}/{name}"), "") for name in (limit, usage))
    if not ceiling.isdigit() or not used.isdigit():  # "max", or not there. (v1 says no limit by a number near 2^63.)
        return None
    stat = dict(line.split(" ", 1) for line in _read_lines(f"{folder}/memory.stat"))
    reclaimable = sum(int(stat.get(name, 0)) for name in cached)
    available_bytes = int(ceiling) - int(used) + reclaimable
    return Headroom(f"the memory limit of cgroup {folder}", available_bytes, _name_cgroup(folder))


def _name_cgroup(folder: str) -> str:
    """By inode: containers of one pod, which have one host name, see each its own at one path."""
    try:
        return f"cgroup {os.stat(folder).st_ino}"
    except OSError:  # gone by now, and with it all processes that it held
        return ""


def _read_lines(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            yield from (line.rstrip("\n") for line in file)
    except OSError:  # not this kernel's, or not visible in this container: then it limits nothing we could know of
        return
