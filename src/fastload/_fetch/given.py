"""What ``warm`` takes a path for: a snapshot of a repo in some cache, or a folder, which gets its own name there."""

from __future__ import annotations

import os

from fastload._fetch.at_path import stored_at
from fastload._fetch.source import Meant
from fastload._store.ref import Candidate, parse_candidate
from fastload._store.root import Root, Stored
from fastload.errors import ModelNotFoundError, UsageError


def meant_by_path(path: str) -> Meant:
    """What is at ``path``.

    Raises:
        ModelNotFoundError: nothing is, or a snapshot that is not complete.
        UsageError: no model could be called as the folder is.
    """
    stored = stored_at(path) if os.path.isdir(path) else None
    if stored is None:
        raise ModelNotFoundError(path, (os.path.dirname(path),), "Give the path of a folder with weights")
    if stored.layout is not None and stored.commit is not None and stored.folder == path:
        return _meant(_judged(stored, os.path.dirname(stored.layout.folder), stored.commit))
    name = os.path.basename(path)
    _check_name(name, path)
    return _meant(Stored(
        tier="path", repo=name, commit=None, folder=path, layout=None, evidence="structure", missing=()
    ))  # fmt: skip


def _judged(snapshot: Stored, root: str, commit: str) -> Stored:
    found = Root(root, label="path").find_commit(snapshot.repo, commit)
    if found is None or not found.is_complete:
        missing = "; ".join(found.missing[:3]) if found is not None else "no files"
        hint = f"It is incomplete ({missing}): fastload warm {snapshot.repo}@{commit} completes it"
        raise ModelNotFoundError(snapshot.folder, (root,), hint)
    return found


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
        learnt="path",
    )
