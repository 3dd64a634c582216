"""How much memory there is, before anything is allocated."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from fastload._cgroup import own_cgroups
from fastload._system_file import read_lines
from fastload.errors import MemoryBudgetError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._cgroup import Cgroup

MEMORY_PER_JSON_BYTE = 22
"""Measured, as resident memory, of what tests/format/large.py makes and of indexes of as short names, at 4.3, 8, 30 and
99 MB: 7 for usual names, at most 21.2. The most is what nobody needs and everybody may write: names of three letters,
one letter that makes the parser hold each with four bytes, and as many keys as may be in fields that nobody knows."""
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
        check_budget(MEMORY_PER_JSON_BYTE * json_bytes, host_headroom(), hint)


def _host_limits(root: str) -> Iterator[Headroom]:
    fields = dict(line.split(":", 1) for line in read_lines(f"{root}/proc/meminfo"))
    if "MemAvailable" in fields:
        yield Headroom("the machine's RAM", int(fields["MemAvailable"].split()[0]) << 10, _RAM)
    else:
        yield Headroom("the machine's RAM", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE"), _RAM)
    for cgroup in own_cgroups("memory", root=root):
        headroom = _cgroup_headroom(cgroup)
        if headroom is not None:
            yield headroom


_RAM = "RAM"
_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))


def _cgroup_headroom(cgroup: Cgroup) -> Headroom | None:
    limit, usage, cached = _V2 if cgroup.is_unified else _V1
    folder, ceiling = cgroup.folder, cgroup.read(limit)
    if not ceiling.isdigit():  # "max", or not there. (v1 says no limit by a number near 2^63.)
        return None
    used = cgroup.read(usage)
    if not used.isdigit():
        return None
    stat = dict(line.split(" ", 1) for line in read_lines(f"{folder}/memory.stat"))
    reclaimable = sum(int(stat.get(name, 0)) for name in cached)
    available_bytes = int(ceiling) - int(used) + reclaimable
    return Headroom(f"the memory limit of cgroup {folder}", available_bytes, _name_cgroup(folder))


def _name_cgroup(folder: str) -> str:
    """By inode: containers of one pod, which have one host name, see each its own at one path."""
    try:
        return f"cgroup {os.stat(folder).st_ino}"
    except OSError:  # gone by now, and with it all processes that it held
        return ""
