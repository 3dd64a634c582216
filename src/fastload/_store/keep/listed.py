"""Which snapshots resident warmers brought, and whose lists name them: only these may such a list take away again.

A file per snapshot and list, which has the path of the list; all of them go with the snapshot. Who brings a snapshot
makes the first one; other lists that name it add theirs, so that none takes away what another one wants.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blake3 import blake3

from fastload._store.filesystem import make_folder, remove_file
from fastload._store.replacing import write_whole

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout

_ID_DIGITS = 16


def mark_listed(layout: RepoLayout, commit: str, list_path: str) -> None:
    """Say that the list names it. To do it twice does no harm.

    Raises:
        StoreError: it cannot be written.
    """
    path = layout.listed(commit, _identify(list_path))
    if not os.path.lexists(path):
        make_folder(os.path.dirname(path))
        make_folder(layout.ours("staging"))
        write_whole(path, os.fsencode(f"{list_path}\n"), layout.ours("staging"))


def mark_if_listed(layout: RepoLayout, commit: str, list_path: str) -> None:
    """Say so, if a list has brought it: what another command or tool brought is no list's.

    Raises:
        StoreError: it cannot be written.
    """
    if _list_marks(layout, commit):
        mark_listed(layout, commit, list_path)


def let_go(layout: RepoLayout, commit: str, list_path: str) -> bool:
    """True if this list alone has named it; where others do as well, it is theirs from now on.

    Raises:
        StoreError: it cannot be written.
    """
    mine = layout.listed(commit, _identify(list_path))
    marks = _list_marks(layout, commit)
    if mine in marks and len(marks) > 1:
        remove_file(mine)
        return False
    return marks == [mine]


def forget_lists(layout: RepoLayout, commit: str) -> None:
    """Of a snapshot that goes.

    Raises:
        StoreError: it cannot be written.
    """
    for mark in _list_marks(layout, commit):
        remove_file(mark)


def _identify(list_path: str) -> str:
    """In a file's name: a path has more characters, and may be longer."""
    return blake3(os.fsencode(list_path)).hexdigest()[:_ID_DIGITS]


def _list_marks(layout: RepoLayout, commit: str) -> list[str]:
    folder, prefix = os.path.split(layout.listed(commit, ""))
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in names if name.startswith(prefix)]
