"""Names of tensors, and globs of them.

Whoever has a part of a mixture of experts spells out ten thousand names: such are looked up. As a glob, each would be
compared with every name of the checkpoint.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_MAGIC = frozenset("*?[")


def is_glob(text: str) -> bool:
    """False for what matches itself and nothing else."""
    return not _MAGIC.isdisjoint(text)


class Globs:
    """Tells by its name whether a tensor is meant by one of several names or globs."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._patterns: list[Callable[[str], object]] = []

    def add(self, text: str, names: Collection[str]) -> bool:
        """One more of them; False if it means none of ``names``."""
        if not is_glob(text):
            self._names.add(text)
            return text in names
        matches = re.compile(fnmatch.translate(text)).match
        self._patterns.append(matches)
        return any(map(matches, names))

    def __call__(self, name: str) -> bool:
        """True if one of them means it."""
        return name in self._names or any(matches(name) for matches in self._patterns)
