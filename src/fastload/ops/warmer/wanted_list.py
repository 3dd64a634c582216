"""The list: ``NAME`` or ``NAME@commit`` per line; ``#`` begins a comment."""

from __future__ import annotations

import os

from fastload._read.file import read_small_file
from fastload.errors import FormatError, UsageError

_MAX_BYTES = 1 << 20  # 1 MiB


def read_list(path: str) -> tuple[str, ...]:
    """The names, in order, each once.

    Raises:
        UsageError: there is none.
        FormatError: it is no text, or too large.
        StoreError: it cannot be read.
    """
    if not os.path.exists(path):
        raise UsageError(f"there is no list {path!r}", "Write it: one NAME or NAME@commit per line")
    return parse_list(read_small_file(path, _MAX_BYTES), path)


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
