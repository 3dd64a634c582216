"""Notes: the JSON that lies beside files, by fastload or another tool, and says what they are or looked like.

Each saves reading or fetching, and proves nothing. So one that is odd counts as not there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._format.json_object import parse_object
from fastload._json_outline import Density
from fastload._read.file import read_small_file
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MAX_BYTES = 64 << 20  # 64 MiB
_DENSITY = Density(value_bytes=8, object_bytes=48)
"""A file's path, size and mtime have 31 bytes and three commas and brackets, and more for a path of several letters."""


def read_note(
    path: str, *, max_bytes: int = _MAX_BYTES, look: Callable[[os.stat_result], object] = lambda _: None
) -> dict[str, Any] | None:
    """The JSON object at ``path``; None where there is no file, or none that can be read, of ``max_bytes`` at most.

    ``look`` is as :func:`~fastload._read.file.read_small_file` has it.

    Raises:
        MemoryBudgetError: there is not enough memory to tell.
    """
    if not os.path.isfile(path):
        return None
    try:
        return parse_object(read_small_file(path, max_bytes, look=look), path, density=_DENSITY)
    except (FormatError, StoreError):
        return None
