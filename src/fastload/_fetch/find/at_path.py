"""What a path leads to: a snapshot in a hub's cache, be it a tier's or another one, or a folder of its own."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._store.containment import check_snapshot
from fastload._store.layout import RepoLayout, find_repo
from fastload._store.stored import CachedSnapshot, JudgedBy, PlainFolder
from fastload._tier import LOCAL, PATH

if TYPE_CHECKING:
    from fastload._store.stored import Stored
    from fastload._store.tiered import Tiers

_SNAPSHOT = re.compile(r"(?P<repo>.*/(?P<name>models--[^/]+))/snapshots/(?P<commit>[0-9a-f]{40})(?:/.*)?", re.DOTALL)


def follow(path: str) -> str:
    """``path`` behind the link that ``warm --link`` makes, if it leads to a snapshot.

    What is known of files is known by their paths there; and a link may lead to another snapshot before all is read.
    """
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    real = os.path.realpath(folder)
    if _SNAPSHOT.fullmatch(folder) or not _SNAPSHOT.fullmatch(real):
        return path
    return os.path.join(real, name) if name else real


def stored_at(path: str) -> Stored | None:
    """The snapshot that a path which a user gave leads into: one of a hub's cache, or a folder of its own.

    Whether it is complete nobody has looked then: nothing is said to be missing.

    Raises:
        StoreError: a link of the repo leads out of the cache.
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    match = _SNAPSHOT.fullmatch(folder)
    if match is not None:
        top = match["repo"] + "/snapshots/" + match["commit"]
        layout = RepoLayout(match["repo"])
        check_snapshot(layout, match["commit"])
        repo = find_repo(match["name"]) or match["name"]
        return CachedSnapshot(
            tier=PATH,
            repo=repo,
            commit=match["commit"],
            folder=top,
            layout=layout,
            judged_by=JudgedBy.STRUCTURE,
            missing=(),
        )
    if not os.path.lexists(path) or not os.path.isdir(folder):  # what lies beside a mistyped name is another model
        return None
    return PlainFolder(tier=PATH, repo=os.path.basename(folder), commit=None, folder=folder, missing=())


def of_tier(stored: Stored, tiers: Tiers) -> Stored:
    """``stored`` as the tier has it in whose cache it lies; as it is where it lies in none.

    Mounts are told by their names alone: to look at one that hangs would hold up what has nothing to do with it.
    """
    if isinstance(stored, PlainFolder):
        return stored
    cache = os.path.dirname(stored.layout.folder)
    if tiers.local is not None and os.path.realpath(tiers.local.path) == os.path.realpath(cache):
        return replace(stored, tier=LOCAL)
    return replace(stored, tier=next((root.tier for root in tiers.shared if root.path == cache), stored.tier))
