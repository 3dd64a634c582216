"""The list: ``NAME`` or ``NAME@commit`` per line; ``#`` begins a comment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fastload._read.file import read_small_file
from fastload.errors import FormatError, UsageError

_MAX_BYTES = 1 << 20  # 1 MiB


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list says."""

    names: tuple[str, ...]
    """In order, each once."""
    is_cut: bool
    """It ends in the midst of a line: somebody may still be writing it."""


def read_list(path: str) -> Wanted:
    """What the list says now.

    Raises:
        UsageError: there is none.
        FormatError: it is no text, or too large.
        StoreError: it cannot be read.
    """
    if not os.path.exists(path):
        raise UsageError(f"there is no list {path!r}", "Write it: one NAME or NAME@commit per line")
    raw = read_small_file(path, _MAX_BYTES)
    return Wanted(parse_list(raw, path), is_cut=not raw.endswith(b"\n"))


def parse_list(raw: bytes, path: str) -> tuple[str, ...]:
    """The names in the text of a list.

    Raises:
        FormatError: it is no UTF-8, or a line has more than a name.
    """
    try:
        lines = raw.decode().splitlines()
    except UnicodeDecodeError as exc:
        raise FormatError(path, f"bytes that are no UTF-8 ({exc.reason})", "a name per line") from exc
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if len(words) > 1:
            expected = "one name per line, such as org/name@revision"
            raise FormatError(path, f"{len(words)} words in line {number}", expected, hint="Write each on its own")
        names += words
    return tuple(dict.fromkeys(names))
