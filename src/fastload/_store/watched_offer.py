"""An offer that knows its own failures, so that they can be told from those of the place that its bytes go to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround
from fastload._read.reader import GradualReader
from fastload._store.offer import OfferAround
from fastload.errors import FormatError, HubError, NoSpaceError, NotWritableError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload._read.reader import Reader
    from fastload._store.offer import Offer, OfferedFile

_OF_A_TARGET = (NoSpaceError, NotWritableError)
"""Where the hub's own client brings the files, it writes them too."""


class WatchedOffer(OfferAround):
    """See :class:`~fastload._store.offer.Offer`: a wrapper with its protocol."""

    def __init__(self, offer: Offer) -> None:
        super().__init__(offer)
        self._failures: list[BaseException] = []

    def has_failed_by(self, error: BaseException) -> bool:
        """True if it was the offer that raised ``error``; several threads may have met one each."""
        return any(error is failure for failure in self._failures)

    def open(self, file: OfferedFile) -> Reader:
        """See :class:`~fastload._store.offer.Offer`."""
        with self.watching():
            reader = self._offer.open(file)
        return _WatchedGradual(reader, self) if isinstance(reader, GradualReader) else _WatchedReader(reader, self)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What is raised inside is the offer's failure."""
        try:
            yield
        except (FormatError, HubError, StoreError) as exc:
            if not isinstance(exc, _OF_A_TARGET):
                self._failures.append(exc)
            raise


class _WatchedReader(ReaderAround):
    """A wrapper with the reader's own protocol; see :class:`~fastload._read.reader.Reader`."""

    def __init__(self, reader: Reader, offer: WatchedOffer) -> None:
        super().__init__(reader)
        self._offer = offer

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        with self._offer.watching():
            self._reader.read_into(offset, buffers)


class _WatchedGradual(_WatchedReader):
    """See :class:`~fastload._read.reader.GradualReader`."""

    def __init__(self, reader: GradualReader, offer: WatchedOffer) -> None:
        super().__init__(reader, offer)
        self._gradual = reader

    def read_each(self, offset: int, buffers: Sequence[memoryview]) -> Iterator[int]:
        """See :class:`~fastload._read.reader.GradualReader`."""
        with self._offer.watching():
            yield from self._gradual.read_each(offset, buffers)
