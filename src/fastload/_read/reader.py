"""The seam between a plan and storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from fastload._format.checkpoint import Shard


class Reader(Protocol):
    """Fills memory from one open file. Several threads may call :meth:`read_into` at once."""

    @property
    def name(self) -> str:
        """``direct``, ``buffered``, … as a report names it."""

    @property
    def alignment_bytes(self) -> int:
        """1: any buffers, one after another. Else: one buffer whose address and length are multiples of it."""

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill ``buffers`` with the file's bytes from ``offset`` on; a buffer may reach past the end of the file.

        Raises:
            IntegrityError: the file ended early or changed since its header was read.
            StoreError: it cannot be read.
            UnsupportedError: this reader cannot serve this file; nothing was delivered.
        """

    def check_path(self) -> None:
        """Raise ``IntegrityError`` if the path no longer leads to this file; called when all was read."""

    def close(self) -> None:
        """Give the descriptor back. No read may be under way."""


OpenReader = Callable[[Shard], Reader]
"""Opens a shard; raises ``UnsupportedError`` where this kind of reader cannot serve it."""
