"""``/proc/self/mountinfo``: which mount a path lies on, told without touching it (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_OCTAL = re.compile(r"\\([0-7]{3})")
_FIRST_OPTIONAL_FIELD = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount as this process sees it."""

    point: str
    source: str
    """A device, or ``server:/export``."""
    kind: str
    """The file system: ``ext4``, ``nfs4``, ``fuse.s3fs``."""
    options: Mapping[str, str]
    """The mount's and the file system's; a bare word has an empty value."""

    def number(self, option: str, default: int) -> int:
        """The number that an option gives; ``default`` where it is not there or is none."""
        text = self.options.get(option, "")
        return int(text) if text.isascii() and text.isdigit() else default


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """The mounts, in the kernel's order; a line that is none is left out."""
    return tuple(_parse_lines(text.split("\n")))


def _parse_lines(lines: Iterable[str]) -> Iterator[Mount]:
    for line in lines:
        head, separator, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if not separator or len(fields) < _FIRST_OPTIONAL_FIELD or len(rest) < 3:  # noqa: PLR2004 - kind, source, options
            continue
        yield Mount(
            point=unescape(fields[4]),
            source=unescape(rest[1]),
            kind=rest[0],
            options=parse_mount_options(rest[2]) | parse_mount_options(fields[5]),
        )


def parse_mount_options(text: str) -> dict[str, str]:
    """``rw,vers=4.2`` as ``{"rw": "", "vers": "4.2"}``."""
    return {name: value for name, _, value in (option.partition("=") for option in text.split(",")) if name}


def find_mount(mounts: Iterable[Mount], path: str) -> Mount | None:
    """The mount that the absolute ``path`` lies on, its links not followed; of two at one place the later, on top."""
    found: Mount | None = None
    for mount in mounts:
        is_on_it = os.path.commonpath([mount.point, path]) == mount.point if mount.point.startswith("/") else False
        if is_on_it and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def unescape(field: str) -> str:
    """As the kernel spells paths: what would end a field is in octal."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
