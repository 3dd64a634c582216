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
from typing import TYPE_CHECKING, Any

from fastload._store.lease.lock import read_boot_id
from fastload.strict_json import JsonError, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIMIT_BYTES = 64 << 20  # 64 MiB
_MAX_HEAD_BYTES = 4096


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
    head = _parse_head(raw)
    if head.get("size") != size:
        return False, {}
    boot_id = read_boot_id()
    here = (boot_id, os.fstat(journal).st_dev)
    # A kernel that does not say which boot it is may be any machine's.
    is_ours = bool(boot_id) and (head.get("boot_id"), head.get("device")) == here
    return is_ours, dict(_parse_lines(raw.split(b"\n")[1:-1]))


def read_boot(journal: int) -> Any:
    """The boot in which it was begun; None where it does not say.

    Raises:
        OSError: it cannot be read.
    """
    return _parse_head(os.pread(journal, _MAX_HEAD_BYTES, 0)).get("boot_id")


def _parse_head(raw: bytes) -> Mapping[str, Any]:
    """The first line; empty where it is no head: whoever can write to a tier can write anything there."""
    first, end, _ = raw[:_MAX_HEAD_BYTES].partition(b"\n")
    try:
        head = parse_json(first) if end else None
    except JsonError:
        return {}
    return head if isinstance(head, dict) else {}


def _parse_lines(lines: list[bytes]) -> Iterator[tuple[int, str]]:
    for line in lines:
        index, _, digest = line.partition(b" ")
        if index.isdigit() and len(index) < 12 and len(digest) == 64:  # noqa: PLR2004 - hex of a BLAKE3
            yield int(index), digest.decode("ascii", errors="replace")
