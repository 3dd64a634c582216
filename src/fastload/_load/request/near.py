"""Which names did a glob that matches none of them probably mean?"""

from __future__ import annotations

import difflib
import heapq
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORDS = re.compile(r"[^.*?\[\]]+")
_COMPARED = 256
_LONGEST = 256


def find_near(glob: str, names: Iterable[str]) -> list[str]:
    """At most three of ``names``, the nearest first.

    To compare two spellings takes a time that grows with the square of their lengths, and a header may hold a million
    names: only those that share most words with the glob are compared, and none that nobody would read.
    """
    if len(glob) > _LONGEST:
        return []
    words = frozenset(_WORDS.findall(glob))
    likely = heapq.nlargest(
        _COMPARED,
        (name for name in names if len(name) <= _LONGEST),
        key=lambda name: len(words.intersection(name.split("."))),
    )
    return difflib.get_close_matches(glob, likely, n=3, cutoff=0.4)
