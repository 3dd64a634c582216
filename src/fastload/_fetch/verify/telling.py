"""Telling a person how far a check is: several threads read, and what is wrong is read more than once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fastload._progress import choose_progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastload._progress import Wish
    from fastload._store.offer import OfferedFile


class Telling:
    """Counts what is read, for whoever ``wish`` names."""

    def __init__(self, wish: Wish, total_bytes: int) -> None:
        self._progress = choose_progress(wish, total_bytes)
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._lock = threading.Lock()

    def add(self, nbytes: int) -> None:
        """So many bytes more were read."""
        with self._lock:
            self._done_bytes = min(self._done_bytes + nbytes, self._total_bytes)
            self._progress.update(self._done_bytes)

    def close(self) -> None:
        """The check is over, well or not."""
        self._progress.close()


def count_bytes(checked: Iterable[OfferedFile], recorded: Iterable[OfferedFile]) -> int:
    """What is read of files of which something is known, to check them, and once more of all that shall be recorded."""
    known = (file for file in checked if file.blocks is not None or file.signed is not None or file.has_digest)
    return sum(file.size for file in (*known, *recorded))
