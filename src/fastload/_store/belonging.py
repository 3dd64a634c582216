"""Is the manifest that lies where that of a snapshot belongs the snapshot's?

A manifest proves bytes, and says of itself of which commit they are. One that was copied to another name would prove
the files of its own commit as those of the one that was asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._store.layout import find_repo, repo_folder
from fastload._verify.manifest import plain_commit
from fastload._verify.trust import RECORDED
from fastload.errors import FormatError, quoted

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout
    from fastload._verify.manifest import Manifest

_HINT = "It is of something else. Remove it, and check what the snapshot holds: fastload verify NAME --record"


def check_is_of(manifest: Manifest, layout: RepoLayout, commit: str, path: str) -> None:
    """Check that ``manifest``, which lies at ``path``, says that it is of ``commit`` in the repo of ``layout``.

    Raises:
        FormatError: it is of another one.
    """
    if manifest.commit != commit:
        raise FormatError(path, f"a manifest of the commit {quoted(manifest.commit)}", f"one of {commit}", hint=_HINT)
    # By their folders: of ``a--b`` nobody can say whether the repo is called so, or ``a/b``. One may lead to another.
    names = {os.path.basename(place) for place in (layout.folder, os.path.realpath(layout.folder))}
    if repo_folder("", manifest.repo) not in names and any(map(find_repo, names)):
        found = f"a manifest of the repo {quoted(manifest.repo)}"
        raise FormatError(path, found, f"one of the repo in {os.path.basename(layout.folder)}", hint=_HINT)


def check_is_whole_record(manifest: Manifest, path: str) -> None:
    """Check that what was recorded of a plain folder is of the commit that its files make.

    Wherever the folder is moved, and whatever it is called there. Of what was brought into one nobody can say that: its
    commit may be the hub's.

    Raises:
        FormatError: it says that it is of another one.
    """
    if manifest.source != RECORDED:
        return
    commit = plain_commit(manifest.files)
    if manifest.commit != commit:
        found = f"a record of the commit {quoted(manifest.commit)}"
        raise FormatError(path, found, f"one of {commit}, which the files in it make", hint=_HINT)
