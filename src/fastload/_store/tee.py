"""A reader whose bytes are staged as they pass: what a load reads from a lower tier need not be read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from fastload._read.reader import Reader
    from fastload._store.admit import Incoming


@dataclass(frozen=True, slots=True)
class Tell:
    """Who is told of the copy."""

    writing: Callable[[], AbstractContextManager[None]]
    """Entered while blocks are digested and written."""
    dropped: Callable[[StoreError], None]
    """Called with the reason why nothing more is."""


class TeeReader:
    """Puts every block that was read into a file on its way in: a wrapper with the reader's own protocol.

    A disk that is slower than the source holds the load back; one that is full, or fails, ends the copy and not the
    load.
    """

    def __init__(self, reader: Reader, incoming: Incoming, file_bytes: int, tell: Tell) -> None:
        self._reader = reader
        self._incoming: Incoming | None = incoming
        self._file_bytes = file_bytes
        self._tell = tell
        self.alignment_bytes = reader.alignment_bytes

    @property
    def name(self) -> str:
        """See :class:`~fastload._read.reader.Reader`."""
        return self._reader.name

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`; ``offset`` is that of a block."""
        self._reader.read_into(offset, buffers)
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
        for index, block in _blocks(offset, buffers, self._file_bytes):
            incoming.put(index, block)

    def check_path(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.check_path()

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`; the file on its way in is its owner's to close."""
        self._reader.close()


def _blocks(offset: int, buffers: Sequence[memoryview], file_bytes: int) -> Iterator[tuple[int, memoryview]]:
    """The whole blocks in ``buffers``, which hold the file's bytes from ``offset`` on and may reach past its end."""
    pieces: list[memoryview] = []
    gathered = 0
    end_bytes = min(file_bytes, offset + sum(map(len, buffers)))
    for buffer in buffers:
        at = 0
        while at < len(buffer) and offset < end_bytes:
            wanted = min(BLOCK_BYTES, end_bytes - offset) - gathered
            piece = buffer[at : at + wanted]
            pieces.append(piece)
            gathered += len(piece)
            at += len(piece)
            if len(piece) == wanted:
                yield offset // BLOCK_BYTES, pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
                offset += gathered
                pieces, gathered = [], 0
