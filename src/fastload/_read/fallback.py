"""``direct`` until the file system refuses it, ``buffered`` from then on: a wrapper with the reader's own protocol."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fastload._read.pread import BufferedReader
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.reader import File, Reader


class FallbackReader:
    """Some file systems take O_DIRECT at open and refuse it at read; only that refusal falls through."""

    def __init__(self, first: Reader, file: File) -> None:
        self._reader = first
        self._refused: Reader | None = None
        self._file = file
        self._lock = threading.Lock()
        self.alignment_bytes = first.alignment_bytes

    @property
    def name(self) -> str:
        """The reader that serves now."""
        return self._reader.name

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        reader = self._reader
        try:
            reader.read_into(offset, buffers)
        except UnsupportedError:
            if reader.name == BufferedReader.name:
                raise
            self._fall_back(reader)
            self._reader.read_into(offset, buffers)

    def _fall_back(self, refused: Reader) -> None:
        """Several threads may be refused at once; the first opens the other reader for all."""
        with self._lock:
            if self._refused is None:
                self._reader = BufferedReader(self._file)
                self._refused = refused  # only now: if the line above failed, the first reader still serves

    def check_path(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.check_path()

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.close()
        if self._refused is not None:
            self._refused.close()
