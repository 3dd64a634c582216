"""The ref: the file that lets a moving revision, such as ``main``, mean a commit. It comes after the snapshot.

Refs of a repo are written under a lease of their own, which is held for that moment only: whoever finds the snapshot
there must not wait for somebody who brings another commit of the same repo, which may take an hour. What bears the
name of a ref on its way is therefore its holder's, or a dead one's.
"""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING

from fastload._store.admit.area import StagingArea
from fastload._store.admit.remains import Leased, sweep_remains
from fastload._store.filesystem import make_folder
from fastload._store.layout import lease_folder
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import wait_hold
from fastload._store.replacing import write_whole
from fastload._store.repo_refs import read_commit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._store.layout import RepoLayout
    from fastload._store.lease.holder import Holder

_STEM = "ref"
_MADE = re.compile(rf"{_STEM}\.[0-9a-f]{{16}}")


def leads_to(layout: RepoLayout, revision: str | None, commit: str) -> bool:
    """True if ``revision`` means ``commit``; None leads anywhere.

    Raises:
        StoreError: the ref cannot be read.
    """
    return revision is None or read_commit(layout, revision) == commit


def write_ref(layout: RepoLayout, revision: str | None, commit: str, *, tell: Callable[[Holder], None]) -> None:
    """Let ``revision`` mean ``commit``; nothing is written where it does already, or where it is None.

    What others left who died while they did so goes in any case.

    Args:
        layout: the repo's.
        revision: a moving one.
        commit: the snapshot of it is there.
        tell: called now and then with whom this waits for; what it raises ends the wait.

    Raises:
        LockTimeoutError: another one is at it, lives, and gets nowhere.
        StoreError: it cannot be written.
    """
    leased = _leased(layout)
    if leads_to(layout, revision, commit):
        sweep_remains(leased)
        return
    lease = wait_hold(
        leased.folder,
        [leased.name],
        f"pointing {revision} to {commit}",
        LeaseTimes(),
        is_done=lambda: leads_to(layout, revision, commit),
        tell=tell,
    )
    with lease or nullcontext():
        if lease is not None and revision is not None:
            leased.area.sweep(_MADE)
            _write(layout, revision, commit)


def _leased(layout: RepoLayout) -> Leased:
    root, folder = os.path.split(layout.folder)
    return Leased(lease_folder(root), f"{folder}--{_STEM}", StagingArea(layout.ours()), _MADE)


def _write(layout: RepoLayout, revision: str, commit: str) -> None:
    path, staging = layout.ref(revision), layout.ours("staging")
    make_folder(os.path.dirname(path))
    make_folder(staging)
    write_whole(path, commit.encode("ascii"), staging, stem=_STEM)
