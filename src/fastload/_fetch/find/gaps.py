"""Tells copies that surely lack something from those of which nobody can say whether they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._store.complete import find_missing_numbers
from fastload._store.wanted import is_weight
from fastload.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._store.folder_offer import FolderOffer
    from fastload._store.wanted import Wish


def split_by_gaps(copies: Sequence[FolderOffer], wish: Wish) -> tuple[list[FolderOffer], list[str]]:
    """The copies in which no set of wished weights is half there, the fullest first; and what is missing of others."""
    whole: list[FolderOffer] = []
    gaps: list[str] = []
    for copy in copies:
        weights = (file.path for file in wish.choose(copy.files) if is_weight(file.path))
        missing = next(find_missing_numbers(weights), None)
        if missing is None:
            whole.append(copy)
        else:
            gaps.append(f"Incomplete in {quoted(copy.folder)} ({missing})")
    return sorted(whole, key=lambda copy: len(wish.choose(copy.files)), reverse=True), gaps
