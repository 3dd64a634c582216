"""The ledger of a load, or of bringing a model up: whoever has read writes down how much, of which tier and for what.

What a report says was read is made of it alone. One ledger goes through all tries of a load, so that one which failed
is in it too; what only one try must know is in that of its :class:`~fastload._read.tally.ProofTally`.
"""

from __future__ import annotations

import threading
from collections import Counter
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastload._tier import Tier

    _Block = tuple[str, int]
    """The path of a file, and which of its blocks."""


class Purpose(Enum):
    """What bytes were read for."""

    WEIGHTS = auto()
    HEADERS = auto()
    """Before there was a plan; with the blocks around them, where these prove them."""
    PROOF = auto()
    """Of files as a whole: to prove or to check them, and nothing else."""
    AGAIN = auto()
    """Past the page cache, since what was read before was wrong."""
    MEND = auto()
    """Of what is mended itself: what stays of a file that is replaced, or proves a blob that is linked again."""
    RECORD = auto()
    """For a manifest that is left."""
    COPY = auto()
    """What only the copy needs that a load keeps."""
    BETTER = auto()
    """Of another tier than the one that serves, which has right what was wrong or lost."""
    HERE = auto()
    """Where it was to be brought: some of it was there already."""


_OF_OTHERS = frozenset({Purpose.BETTER, Purpose.HERE})


class Ledger:
    """Threads write in it: once for a read of an extent or a block, never for less."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: Counter[tuple[Tier, Purpose]] = Counter()
        self._reread: set[_Block] = set()
        self._repaired: set[_Block] = set()
        self._parts: list[Ledger] = []

    def part(self) -> Ledger:
        """One of its own for one try; what is written there is in this one, too."""
        part = Ledger()
        self._parts.append(part)
        return part

    def note(self, tier: Tier, purpose: Purpose, nbytes: int) -> None:
        """So many bytes of ``tier`` were read."""
        with self._lock:
            self._bytes[tier, purpose] += nbytes

    def count_reread(self, path: str, indexes: Iterable[int]) -> None:
        """These blocks of the file at ``path`` were found wrong, and read once more."""
        with self._lock:
            self._reread.update((path, index) for index in indexes)

    def count_repaired(self, path: str, indexes: Iterable[int]) -> None:
        """These blocks of the file at ``path`` came from elsewhere."""
        with self._lock:
            self._repaired.update((path, index) for index in indexes)

    @property
    def reread(self) -> int:
        """Blocks that were found wrong, and read once more; one that was twice, as a header is, counts once."""
        return len(self.reread_blocks())

    @property
    def repaired(self) -> int:
        """Blocks that came from elsewhere, each counted once."""
        return len(self.repaired_blocks())

    def reread_blocks(self) -> set[_Block]:
        """Those that :attr:`reread` counts."""
        with self._lock:
            own = self._reread.copy()
        return own.union(*(part.reread_blocks() for part in self._parts))

    def repaired_blocks(self) -> set[_Block]:
        """Those that :attr:`repaired` counts."""
        with self._lock:
            own = self._repaired.copy()
        return own.union(*(part.repaired_blocks() for part in self._parts))

    @property
    def own_bytes(self) -> int:
        """Read of the tiers that served, or were tried."""
        return sum(nbytes for (_, purpose), nbytes in self.entries() if purpose not in _OF_OTHERS)

    def bytes_for(self, purpose: Purpose) -> int:
        """Of all tiers."""
        return sum(nbytes for (_, each), nbytes in self.entries() if each is purpose)

    def by_tier(self, *served: Tier) -> dict[str, int]:
        """All that was read; with the tiers that ``served`` first, also where that was nothing."""
        found = Counter(dict.fromkeys(served, 0))
        for (tier, _), nbytes in self.entries():
            found[tier] += nbytes
        return {str(tier): nbytes for tier, nbytes in found.items() if nbytes or tier in served}

    def entries(self) -> list[tuple[tuple[Tier, Purpose], int]]:
        """All bytes, by tier and purpose; of each part apart."""
        with self._lock:
            entries = list(self._bytes.items())
        for part in self._parts:
            entries += part.entries()
        return entries
