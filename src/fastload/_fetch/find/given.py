"""What ``warm`` takes a path for: a snapshot of a repo in some cache, or a folder, which gets its own name there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._fetch.find.at_path import stored_at
from fastload._fetch.find.meant import Meant
from fastload._format.gguf import GGUF_SUFFIX
from fastload._format.index import SHARD_SUFFIX
from fastload._store.complete import find_missing_of_plain
from fastload._store.listing import list_files
from fastload._store.ref import Candidate, parse_candidate
from fastload._store.root import Root
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._tier import PATH
from fastload.errors import ModelNotFoundError, UsageError

if TYPE_CHECKING:
    from fastload._store.stored import Stored


def meant_by_path(path: str) -> Meant:
    """What is at ``path``.

    Raises:
        ModelNotFoundError: nothing is, or what is not complete.
        UsageError: no model could be called as the folder is.
    """
    stored = stored_at(path) if os.path.isdir(path) else None
    if stored is None:
        raise ModelNotFoundError(path, (os.path.dirname(path),), "Give the path of a folder with weights")
    if isinstance(stored, CachedSnapshot) and stored.folder == path:
        return _meant(_judged(stored))
    name = os.path.basename(path)
    _check_name(name, path)
    _check_whole(path)
    return _meant(PlainFolder(tier=PATH, repo=name, commit=None, folder=path, missing=()))


def _judged(snapshot: CachedSnapshot) -> CachedSnapshot:
    root = Root(os.path.dirname(snapshot.layout.folder), PATH)
    found = root.judge(snapshot.layout, snapshot.repo, snapshot.commit)
    if found is None or not found.is_complete:
        missing = found.missing if found is not None else ("no files",)
        cure = f"fastload warm {snapshot.repo}@{snapshot.commit} completes it"
        raise _incomplete(snapshot.folder, missing, cure)
    return found


def _check_whole(path: str) -> None:
    """An interrupted download has no manifest to earn. Weights of which only names are known are judged by nothing."""
    files = list_files(path)
    if any(file.path.endswith((SHARD_SUFFIX, GGUF_SUFFIX)) for file in files):
        missing = tuple(find_missing_of_plain(path, files))
        if missing:
            raise _incomplete(path, missing, "finish the download, or copy it again")


def _incomplete(path: str, missing: tuple[str, ...], cure: str) -> ModelNotFoundError:
    return ModelNotFoundError(path, (os.path.dirname(path),), f"It is incomplete ({'; '.join(missing[:3])}): {cure}")


def _check_name(name: str, path: str) -> None:
    """``my--model`` would become the repo ``my/model``; what is no name at all nothing could remove again."""
    try:
        is_name = parse_candidate(name) == Candidate(name, None)
    except UsageError:
        is_name = False
    if not is_name:
        hint = "A name has letters, digits, '.', '_' and single '-'. Warm a link to it that is called so"
        raise UsageError(f"{path!r}: no model can be called {name!r}", hint)


def _meant(stored: Stored) -> Meant:
    return Meant(
        candidate=Candidate(stored.repo, stored.commit),
        repo=stored.repo,
        commit=stored.commit,
        find_stored=lambda: (stored,),
        hub=None,
        learnt=str(PATH),
    )
