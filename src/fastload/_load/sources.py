"""The readers of a plan: each opened when its shard's first extent is read, closed when its last one was."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload._format.checkpoint import Shard
    from fastload._plan.extent import Extent
    from fastload._read.choose import Choice
    from fastload._read.reader import Reader


class Sources:
    """Open readers, by shard. A checkpoint may have more shards than a process may have descriptors."""

    def __init__(self, shards: Sequence[Shard], choices: dict[int, Choice], extents: Sequence[Extent]) -> None:
        self._shards = shards
        self._choices = choices
        self._lock = threading.Lock()
        self._open: dict[int, Reader] = {}
        self._users: Counter[int] = Counter()
        self._left = Counter(extent.shard for extent in extents)
        self._is_closed = False
        self._served: dict[int, str] = {}

    @contextmanager
    def reader_for(self, shard: int) -> Iterator[Reader]:
        """The shard's reader, for one extent. After its last one the path is checked and the reader closed."""
        with self._lock:
            if shard not in self._open:
                self._open[shard] = self._choices[shard].open(self._shards[shard])
            reader = self._open[shard]
            self._users[shard] += 1
        try:
            yield reader
            with self._lock:
                self._left[shard] -= 1
                is_last = not self._left[shard]
            if is_last:
                reader.check_path()
        finally:
            with self._lock:
                self._users[shard] -= 1
                self._served[shard] = reader.name
                self._close_idle()

    def close(self) -> None:
        """Close what is open; a reader still in use is closed by its last user."""
        with self._lock:
            self._is_closed = True
            self._close_idle()

    def _close_idle(self) -> None:
        for shard in [s for s in self._open if not self._users[s] and (self._is_closed or not self._left[s])]:
            self._open.pop(shard).close()

    def describe(self) -> tuple[str, str]:
        """Which readers served, and why: for the report."""
        shards_by: dict[tuple[str, str], list[int]] = {}
        for shard, served in sorted(self._served.items()):
            choice = self._choices[shard]
            fell_back = f"{choice.name} was refused for this file, so it was read {served}"
            reason = choice.reason if served == choice.name else f"{choice.reason}; {fell_back}"
            shards_by.setdefault((served, reason), []).append(shard)
        if not shards_by:
            return "none", "nothing was read"
        names = "+".join(sorted({name for name, _ in shards_by}))
        if len(shards_by) == 1:
            return names, next(iter(shards_by))[1]
        parts = (f"{len(shards)} shards {name} ({reason})" for (name, reason), shards in shards_by.items())
        return names, "; ".join(parts)
