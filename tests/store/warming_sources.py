"""Offers that go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.reader import Reader
    from fastload._store.folder_offer import FolderOffer
    from fastload._store.offer import OfferedFile
    from fastload._store.wanted import Wish


class Breaking:
    """An offer of which one file has a wrong byte the first few times that it is opened."""

    def __init__(self, offer: FolderOffer, path: str, times: int) -> None:
        self.tier, self.repo, self.commit = offer.tier, offer.repo, offer.commit
        self.evidence, self.files, self.depth = offer.evidence, offer.files, offer.depth
        self.folder = offer.folder
        self._offer, self._path, self._times = offer, path, times

    def lacks(self, wish: Wish) -> bool:
        """See Offer."""
        return self._offer.lacks(wish)

    def open(self, file: OfferedFile) -> Reader:
        """See Offer."""
        reader = self._offer.open(file)
        if file.path != self._path or not self._times:
            return reader
        self._times -= 1
        return _BrokenReader(reader)


@dataclass
class _BrokenReader:
    reader: Reader

    def __post_init__(self) -> None:
        self.name, self.alignment_bytes = self.reader.name, self.reader.alignment_bytes

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self.reader.read_into(offset, buffers)
        if offset == 0:
            buffers[0][20] ^= 1

    def check_path(self) -> None:
        self.reader.check_path()

    def close(self) -> None:
        self.reader.close()
