"""What a repo's ``refs/`` say: which commit a moving revision means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._read.file import read_small_file
from fastload._store.containment import leads_out
from fastload._store.ref import DEFAULT_REVISION, is_commit
from fastload.errors import FormatError

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout

_MAX_REF_BYTES = 4096


def read_commit(layout: RepoLayout, revision: str | None) -> str | None:
    """The commit that ``revision`` means, by itself or by the repo's ``refs/``; None where they do not say.

    What a link out of the cache leads to says nothing.

    Raises:
        StoreError: the ref cannot be read.
    """
    if revision is not None and is_commit(revision):
        return revision
    path = layout.ref(revision or DEFAULT_REVISION)
    if not os.path.isfile(path) or leads_out(path, os.path.dirname(os.path.realpath(layout.folder))):
        return None
    try:
        text = read_small_file(path, _MAX_REF_BYTES).decode("ascii", errors="replace").strip()
    except FormatError:  # nobody's ref is 4 KiB long
        return None
    return text if is_commit(text) else None


def list_refs(layout: RepoLayout) -> dict[str, str]:
    """Each moving revision of a repo and the commit it means."""
    refs: dict[str, str] = {}
    for above, _, names in os.walk(layout.refs):
        for name in names:
            revision = os.path.relpath(os.path.join(above, name), layout.refs)
            commit = read_commit(layout, revision)
            if commit is not None:
                refs[revision] = commit
    return refs
