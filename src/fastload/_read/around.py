"""What wrappers of readers have in common: they are as the reader that they wrap, but for how they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastload._read.reader import Reader


class ReaderAround:
    """All of :class:`~fastload._read.reader.Reader` but ``read_into``."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def name(self) -> str:
        """Another one once the reader below falls back."""
        return self._reader.name

    @property
    def alignment_bytes(self) -> int:
        """That of the reader it began with: one that falls back takes less."""
        return self._reader.alignment_bytes

    def check_path(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.check_path()

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.close()
