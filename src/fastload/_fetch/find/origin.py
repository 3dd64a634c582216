"""The plain folder on a mount of which the copy on the local tier was made.

Its commit follows from what was brought, so that no other tier knows it: what was not wished for when it was brought is
found there alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.find.resolve import parse_model, tiers_of
from fastload._store.admit.stamp import read_chosen, source_is_unchanged
from fastload._store.folder_offer import offer_stored
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._store.tiered import search

if TYPE_CHECKING:
    from fastload.options import Settings


def find_origin(model: str, revision: str | None, settings: Settings) -> str | None:
    """The folder, where the files that were brought are in it as they were then; None: there is none, or it changed.

    Raises:
        UsageError: ``model`` is no name.
        StoreError: the folder cannot be read.
    """
    parsed, tiers = parse_model(model, revision, settings), tiers_of(settings)
    if isinstance(parsed, str):
        return None
    copy = search(parsed, replace(tiers, shared=())).found
    origin = search(parsed, replace(tiers, local=None)).found
    if not isinstance(copy, CachedSnapshot) or not isinstance(origin, PlainFolder):
        return None
    stamp = copy.layout.stamp(copy.commit)
    brought = read_chosen(stamp).wish.choose(offer_stored(origin).files)
    return origin.folder if source_is_unchanged(stamp, brought) else None
