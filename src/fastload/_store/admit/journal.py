"""The journal of a file on its way in: a head that says who writes, then a line for each block that was written.

::

    {"schema": 1, "size": 4976698672, "boot_id": "…", "device": 2049}
    17 <BLAKE3 of block 17>

Appended, never synced, and never trusted: whoever reads it proves each block again.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastload._store.lease.lock import read_boot_id
from fastload._verify.digest import count_blocks
from fastload.strict_json import JsonError, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIMIT_BYTES = 64 << 20  # 64 MiB
_MAX_HEAD_BYTES = 4096
_LINE = re.compile(rb"^([0-9]{1,11}) ([0-9a-f]{64})\n", re.MULTILINE)
_MAX_LINE_BYTES = 11 + 1 + 64 + 1
_LINES_PER_BLOCK = 4
"""A block may be written again; what nobody needs for that is not read."""


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
    blocks = count_blocks(size)
    raw = os.pread(journal, min(_LIMIT_BYTES, _MAX_HEAD_BYTES + blocks * _LINES_PER_BLOCK * _MAX_LINE_BYTES), 0)
    head = _parse_head(raw)
    if head.get("size") != size:
        return False, {}
    boot_id = read_boot_id()
    here = (boot_id, os.fstat(journal).st_dev)
    # A kernel that does not say which boot it is may be any machine's.
    is_ours = bool(boot_id) and (head.get("boot_id"), head.get("device")) == here
    return is_ours, dict(_parse_lines(raw, blocks))


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


def _parse_lines(raw: bytes, blocks: int) -> Iterator[tuple[int, str]]:
    """One by one, since whoever can write to a tier can write millions; the head is no line of a block."""
    for line in _LINE.finditer(raw):
        if int(line[1]) < blocks:
            yield int(line[1]), line[2].decode("ascii")
