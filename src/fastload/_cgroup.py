"""The control groups that this process is in, and the files in which the kernel says what they limit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._system_file import read_line, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMBERSHIP = "/proc/self/cgroup"


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One of them, of a controller."""

    folder: str
    is_unified: bool
    """True for v2, whose files have other names."""

    def read(self, name: str) -> str:
        """The first line of one of its files; empty where it is not there."""
        return read_line(f"{self.folder}/{name}")


def own_cgroups(controller: str, *, root: str = "") -> Iterator[Cgroup]:
    """The cgroup of this process for ``controller``, and those above it; each may have a limit.

    In a container the path may be the host's, and only the root of the mount is visible: folders that are not there
    limit nothing.

    Args:
        controller: ``memory`` or ``cpu``.
        root: where /proc and /sys are; another one in tests.
    """
    for line in read_lines(root + _MEMBERSHIP):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = f"{root}/sys/fs/cgroup/{controller}" if controllers else f"{root}/sys/fs/cgroup"
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts), -1, -1):
            yield Cgroup(os.path.join(base, *parts[:depth]), is_unified=not controllers)
