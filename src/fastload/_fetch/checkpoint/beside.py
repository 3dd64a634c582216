"""A small file of the model's that lies beside its shards: in a folder, or where only the hub has it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from fastload._read.file import read_small_file
from fastload._store.directory import contained, containment_root
from fastload._store.offered import read_proven

if TYPE_CHECKING:
    from fastload._read.file import ProveWhole
    from fastload._store.offer import Offer


class Beside(Protocol):
    """One file, which may be there or not."""

    path: str

    @property
    def is_there(self) -> bool:
        """True if it is a file, and not lost."""

    def read(self, max_bytes: int, prove: ProveWhole) -> bytes | None:
        """All of it; None where nothing is of that name.

        Raises:
            FormatError: it is larger than ``max_bytes``, no file, or a link that leads elsewhere.
            FastloadError: it cannot be read, or is not what ``prove`` knows of it.
        """


class InFolder:
    """Of the name ``name`` below ``top``."""

    def __init__(self, top: str, name: str) -> None:
        self.path = os.path.join(top, name)
        self._top = top

    @property
    def is_there(self) -> bool:
        """See :class:`Beside`."""
        return os.path.isfile(self.path)

    def read(self, max_bytes: int, prove: ProveWhole) -> bytes | None:
        """See :class:`Beside`."""
        if not os.path.lexists(self.path):
            return None
        return read_small_file(contained(self.path, containment_root(self._top)), max_bytes, prove)


class InOffer:
    """What ``offer`` has by the name ``path``."""

    def __init__(self, offer: Offer, path: str) -> None:
        self.path = path
        self._offer = offer
        self._file = next((file for file in offer.files if file.path == path), None)

    @property
    def is_there(self) -> bool:
        """See :class:`Beside`."""
        return self._file is not None

    def read(self, max_bytes: int, prove: ProveWhole) -> bytes | None:
        """See :class:`Beside`."""
        return None if self._file is None else read_proven(self._offer, self._file, max_bytes, prove)
