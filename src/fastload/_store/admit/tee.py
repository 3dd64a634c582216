"""A reader whose bytes are staged as they pass: what a load reads from a lower tier need not be read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround
from fastload._read.blocks import joined, split_blocks
from fastload.errors import IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from fastload._read.reader import Reader
    from fastload._store.admit.incoming import Incoming


@dataclass(frozen=True, slots=True)
class Tell:
    """Who is told of the copy."""

    writing: Callable[[], AbstractContextManager[None]]
    """Entered while blocks are digested and written."""
    dropped: Callable[[StoreError], None]
    """Called with the reason why nothing more is."""
    proven: Callable[[], Sequence[str] | None]
    """The digests of all blocks, once the file was proven as a whole."""
    wrong: Callable[[IntegrityError], IntegrityError]
    """Called where the file as a whole is not what it should be; gives the error to be raised."""


class TeeReader(ReaderAround):
    """Puts every block that was read into a file on its way in: a wrapper with the reader's own protocol.

    A disk that is slower than the source holds the load back; one that is full, or fails, ends the copy and not the
    load. The file on its way in is its owner's to close.
    """

    def __init__(self, reader: Reader, incoming: Incoming, file_bytes: int, tell: Tell) -> None:
        super().__init__(reader)
        self._incoming: Incoming | None = incoming
        self._file_bytes = file_bytes
        self._tell = tell
        self._is_vouched = False

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`; ``offset`` is that of a block."""
        try:
            self._reader.read_into(offset, buffers)
        except IntegrityError as exc:
            if not exc.is_whole:
                raise
            raise self._tell.wrong(exc) from exc.__cause__
        incoming = self._incoming
        if incoming is None:
            return
        try:
            with self._tell.writing():
                self._put(incoming, offset, buffers)
        except StoreError as exc:
            self._incoming = None
            self._tell.dropped(exc)

    def _put(self, incoming: Incoming, offset: int, buffers: Sequence[memoryview]) -> None:
        for index, pieces in split_blocks(offset, buffers, self._file_bytes):
            incoming.put(index, joined(pieces))
        blocks = None if self._is_vouched else self._tell.proven()
        if blocks is not None:
            self._is_vouched = True
            incoming.vouch(blocks)
