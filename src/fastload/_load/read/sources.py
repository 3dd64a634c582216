"""The readers of a plan, and which of them served."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING

from fastload._read.pool import ReaderPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from fastload._format.checkpoint import Shard
    from fastload._plan.extent import Extent
    from fastload._read.choose import Choice
    from fastload._read.pool import Loan
    from fastload._read.reader import Reader


class Sources:
    """Open readers, by shard."""

    def __init__(
        self,
        shards: Sequence[Shard],
        choices: dict[int, Choice],
        extents: Sequence[Extent],
        opening: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``opening`` is entered while a file is opened."""
        self._shards = shards
        self._choices = choices
        self._opening = opening
        self._pool = ReaderPool(self._open, _count(extents))
        self._opened: dict[int, Reader] = {}

    def _open(self, shard: int) -> Reader:
        with self._opening():
            reader = self._opened[shard] = self._choices[shard].open(self._shards[shard])
            return reader

    def reader_for(self, shard: int) -> Loan[Reader]:
        """The shard's reader, for one extent, as a context."""
        return self._pool.reader_for(shard)

    def lend(self, shard: int) -> Reader:
        """The shard's reader, until it is taken back."""
        try:
            return self._pool.lend(shard)
        except BaseException:
            self._pool.take_back(shard, None)
            raise

    def take_back(self, shard: int, reader: Reader | None) -> None:
        """One extent was read by it; None: it was not."""
        self._pool.take_back(shard, reader)

    def open_once(self, shard: int) -> None:
        """Open a shard of which no extent is read, and close it: what proves it as a whole reads it then."""
        self._open(shard).close()

    def expect(self, extents: Sequence[Extent]) -> None:
        """These will be read as well."""
        self._pool.expect(_count(extents))

    def close(self) -> None:
        """Close what is open; a reader still in use is closed by its last user."""
        self._pool.close()

    def describe(self) -> tuple[str, str]:
        """Which readers served, and why: for the report."""
        shards_by: dict[tuple[str, str], list[int]] = {}
        for shard, reader in sorted(self._opened.items()):
            choice, served = self._choices[shard], reader.name
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


def _count(extents: Sequence[Extent]) -> Counter[int]:
    return Counter(extent.shard for extent in extents)
