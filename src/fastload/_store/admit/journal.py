"""The journal of a file on its way in: a head that says who writes, then a line for each block that was written.

::

    {"schema": 1, "size": 4976698672, "boot_id": "…", "device": 2049}
    17 <BLAKE3 of block 17>

Appended, never synced, and never trusted: whoever reads it proves each block again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.lease.lock import read_boot_id

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIMIT_BYTES = 64 << 20  # 64 MiB


@dataclass(slots=True)
class Claims:
    """What an earlier writer left: bytes that have yet to be proven."""

    descriptor: int
    digests: dict[int, str]


def dump_head(size: int, device: int) -> bytes:
    """The first line, of a writer in this boot of this machine."""
    head = {"schema": 1, "size": size, "boot_id": read_boot_id(), "device": device}
    return json.dumps(head).encode("ascii") + b"\n"


def dump_line(index: int, digest: str) -> bytes:
    """The line of one block."""
    return f"{index} {digest}\n".encode("ascii")


def parse_journal(journal: int, size: int) -> tuple[bool, dict[int, str]]:
    """Whether it was begun under this kernel and mount, and the digests; what is odd or torn counts as not written."""
    raw = os.pread(journal, _LIMIT_BYTES, 0)
    first, _, rest = raw.partition(b"\n")
    try:
        head = json.loads(first)
    except ValueError:
        return False, {}
    if not isinstance(head, dict) or head.get("size") != size:
        return False, {}
    boot_id = read_boot_id()
    here = (boot_id, os.fstat(journal).st_dev)
    # A kernel that does not say which boot it is may be any machine's.
    is_ours = bool(boot_id) and (head.get("boot_id"), head.get("device")) == here
    return is_ours, dict(_parse_lines(rest.split(b"\n")[:-1]))


def _parse_lines(lines: list[bytes]) -> Iterator[tuple[int, str]]:
    for line in lines:
        index, _, digest = line.partition(b" ")
        if index.isdigit() and len(index) < 12 and len(digest) == 64:  # noqa: PLR2004 - hex of a BLAKE3
            yield int(index), digest.decode("ascii", errors="replace")
