"""The journal of a file on its way in: a head that says who writes, then a line for each block that was written.

::

    {"schema": 1, "size": 4976698672, "boot_id": "…", "device": 2049}
    17 <BLAKE3 of block 17>
    proven <BLAKE3 of the digests of all blocks>

Appended, never synced, and never trusted: whoever reads it proves each block again. The last line is for whoever cannot
wait for the end of the file, where its digest as a whole would tell: these very blocks had passed that proof before.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fastload._system_file import read_boot_id
from fastload._verify.digest import block_digest, count_blocks
from fastload.strict_json import JsonError, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_LIMIT_BYTES = 64 << 20  # 64 MiB
_MAX_HEAD_BYTES = 4096
_LINE = re.compile(rb"^([0-9]{1,11}) ([0-9a-f]{64})\n", re.MULTILINE)
_PROVEN = re.compile(rb"^proven ([0-9a-f]{64})\n", re.MULTILINE)
_MAX_LINE_BYTES = 11 + 1 + 64 + 1
_LINES_PER_BLOCK = 4
"""A block may be written again; what nobody needs for that is not read."""


@dataclass(slots=True)
class Claims:
    """What an earlier writer left: bytes that have yet to be proven."""

    descriptor: int
    digests: dict[int, str]
    is_proven: bool = False
    """True if whoever wrote them had seen that the file as a whole is right."""


class Journal(NamedTuple):
    """What one says."""

    is_ours: bool
    """True if it was begun under this kernel and mount."""
    digests: dict[int, str]
    is_proven: bool
    """True if these are all blocks, and a file of just these was proven by its digest as a whole."""


def dump_head(size: int, device: int) -> bytes:
    """The first line, of a writer in this boot of this machine."""
    head = {"schema": 1, "size": size, "boot_id": read_boot_id(), "device": device}
    return json.dumps(head).encode("ascii") + b"\n"


def dump_line(index: int, digest: str) -> bytes:
    """The line of one block."""
    return f"{index} {digest}\n".encode("ascii")


def dump_proven(blocks: Iterable[str]) -> bytes:
    """The line of a file of these ``blocks``, all of them in order, that was proven as a whole."""
    return f"proven {_digest_of(blocks)}\n".encode("ascii")


def _digest_of(blocks: Iterable[str]) -> str:
    return block_digest(*map(bytes.fromhex, blocks))


def parse_journal(journal: int, size: int) -> Journal:
    """What the open file says of one of ``size`` bytes; what is odd or torn counts as not written."""
    blocks = count_blocks(size)
    raw = os.pread(journal, min(_LIMIT_BYTES, _MAX_HEAD_BYTES + blocks * _LINES_PER_BLOCK * _MAX_LINE_BYTES), 0)
    head = _parse_head(raw)
    if head.get("size") != size:
        return Journal(is_ours=False, digests={}, is_proven=False)
    boot_id = read_boot_id()
    here = (boot_id, os.fstat(journal).st_dev)
    # A kernel that does not say which boot it is may be any machine's.
    is_ours = bool(boot_id) and (head.get("boot_id"), head.get("device")) == here
    digests = dict(_parse_lines(raw, blocks))
    return Journal(is_ours, digests, is_proven=len(digests) == blocks and _is_proven(raw, digests))


def _is_proven(raw: bytes, digests: Mapping[int, str]) -> bool:
    """By the last line that says so. What was written otherwise since then is another file."""
    said = _PROVEN.findall(raw)
    return bool(said) and said[-1].decode("ascii") == _digest_of(digests[index] for index in range(len(digests)))


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
