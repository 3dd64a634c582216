"""A tier that is a folder: the hub's cache layout and plain folders below one root, local or shared.

Finding only reads. What cannot be read is not a miss but a ``StoreError``: the caller decides whether a tier that
cannot say is worth an error of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._format.gguf import GGUF_SUFFIX
from fastload._format.index import SHARD_SUFFIX
from fastload._store.complete import find_missing_of_plain
from fastload._store.containment import check_inside, check_repo, check_snapshot
from fastload._store.folder_record import has_lost
from fastload._store.judge import judge_snapshot
from fastload._store.layout import RepoLayout, find_repo, repo_folder
from fastload._store.listing import list_files, read_download
from fastload._store.ref import Candidate, is_commit
from fastload._store.repo_refs import read_commit
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._store.stored import Stored
    from fastload._tier import Tier

_MODEL_FILES = (SHARD_SUFFIX, GGUF_SUFFIX, ".bin", "config.json", "model_index.json")
"""By one of these at its top a folder is known for a model."""


class Root:
    """The snapshots below one folder."""

    def __init__(self, path: str, tier: Tier, *, hidden: str | None = None) -> None:
        self.path = path
        self.tier = tier
        self._hidden = hidden

    def without(self, folder: str) -> Root:
        """The same, blind to the plain folder that ``folder`` is, by whatever path."""
        return Root(self.path, self.tier, hidden=os.path.realpath(folder))

    def find(self, candidate: Candidate, *, is_alias: bool) -> Stored | None:
        """What there is of ``candidate``, complete or not; of two the complete one, in the hub's layout before plain.

        Raises:
            StoreError: it cannot be read.
        """
        incomplete: list[Stored] = []
        for stored in self._look_for(candidate, is_alias=is_alias):
            if stored is not None and stored.is_complete:
                return stored  # whatever else is called so is not even looked at
            incomplete += [stored] if stored is not None else []
        return incomplete[0] if incomplete else None

    def _look_for(self, candidate: Candidate, *, is_alias: bool) -> Iterator[Stored | None]:
        commit = read_commit(self.enter(candidate.repo), candidate.revision)
        if commit is not None:
            yield self.find_commit(candidate.repo, commit)
        names = [candidate.repo]
        if is_alias or candidate.is_pinned:
            names.append(candidate.repo.rpartition("/")[2])
        for name in dict.fromkeys(names):
            # A folder that is called only half as what was asked for may be anybody's, unless it says of its commit.
            must_say = name != candidate.repo and not is_alias
            yield self._find_plain(candidate, os.path.join(self.path, name), must_say=must_say)

    def find_commit(self, repo: str, commit: str) -> CachedSnapshot | None:
        """The snapshot of ``commit`` in the hub's layout, if there is anything of it.

        Raises:
            StoreError: it cannot be read, or a link leads out of the tier.
        """
        return self.judge(self.enter(repo), repo, commit)

    def enter(self, repo: str) -> RepoLayout:
        """Where the repo lies in the hub's layout, whether it is there or not.

        Raises:
            StoreError: a link leads out of the tier.
        """
        layout = RepoLayout(repo_folder(self.path, repo))
        check_inside(layout.folder, self.path)
        check_repo(layout)
        return layout

    def judge(self, layout: RepoLayout, repo: str, commit: str) -> CachedSnapshot | None:
        """The same of a repo that may lie anywhere, since a user gave its path."""
        check_snapshot(layout, commit)
        folder = layout.snapshot(commit)
        if not _is_folder(folder):
            return None
        judged_by, missing = judge_snapshot(layout, commit)
        return CachedSnapshot(
            tier=self.tier,
            repo=repo,
            commit=commit,
            folder=folder,
            layout=layout,
            judged_by=judged_by,
            missing=missing,
        )

    def find_plain(self, name: str) -> PlainFolder | None:
        """The plain folder of that name, if there is one."""
        return self._find_plain(Candidate(name, None), os.path.join(self.path, name), must_say=False)

    def _find_plain(self, candidate: Candidate, folder: str, *, must_say: bool) -> PlainFolder | None:
        if os.path.isdir(folder):
            check_inside(folder, self.path)
        if not _is_folder(folder) or (self._hidden is not None and os.path.realpath(folder) == self._hidden):
            return None
        files = list_files(folder)
        if not any("/" not in file.path and file.path.endswith(_MODEL_FILES) for file in files):
            return None  # some folder of that name, such as an organisation's
        commits = {known[0] for file in files if (known := read_download(folder, file))}
        commit = commits.pop() if len(commits) == 1 else None
        if (must_say or candidate.revision is not None) and (commit is None or commit != candidate.revision):
            return None
        missing = tuple(find_missing_of_plain(folder, files))
        return PlainFolder(
            tier=self.tier,
            repo=candidate.repo if must_say else os.path.relpath(folder, self.path),
            commit=commit if must_say else None,
            folder=folder,
            missing=missing,
            noted_commit=commit,
            is_damaged=bool(missing) and has_lost(folder, files),
        )

    def list_all(self, pass_over: Callable[[StoreError], object] = lambda _: None) -> Iterator[Stored]:
        """Every snapshot of every repo in the hub's layout, and every plain folder (``name`` and ``org/name``).

        Args:
            pass_over: is told of a repo that cannot be read, which is no reason not to see the others.

        Raises:
            StoreError: the root itself cannot be read.
        """
        for name in self.list_names():
            repo = find_repo(name)
            try:
                yield from self._list_plain(name) if repo is None else self.list_commits(repo)
            except StoreError as exc:
                pass_over(exc)

    def list_commits(self, repo: str) -> Iterator[CachedSnapshot]:
        """Every snapshot of one repo in the hub's layout.

        Raises:
            StoreError: it cannot be read.
        """
        for commit in _list_folder(self.enter(repo).snapshots):
            found = self.find_commit(repo, commit) if is_commit(commit) else None
            if found is not None:
                yield found

    def _list_plain(self, name: str) -> Iterator[PlainFolder]:
        stored = self.find_plain(name)
        if stored is not None:
            yield stored
        elif "/" not in name:
            for below in _list_folder(os.path.join(self.path, name)):
                if not below.startswith("."):
                    yield from self._list_plain(f"{name}/{below}")

    def list_models(self) -> Iterator[str]:
        """What there seems to be, by names alone: repos, and folders with weights or a config at their top.

        Raises:
            StoreError: the root itself cannot be read.
        """
        for name in self.list_names():
            repo = find_repo(name)
            yield from self._list_plain_models(name) if repo is None else (repo,)

    def _list_plain_models(self, name: str) -> Iterator[str]:
        try:
            inside = _list_folder(os.path.join(self.path, name))
        except StoreError:
            yield name  # whatever it is: who looks for it should hear that it is there
            return
        if any(each.endswith(_MODEL_FILES) for each in inside):
            yield name
        elif "/" not in name:
            for below in inside:
                if not below.startswith("."):
                    yield from self._list_plain_models(f"{name}/{below}")

    def list_names(self) -> list[str]:
        """The names of the folders at the top; none where there is no root."""
        return [name for name in _list_folder(self.path) if not name.startswith(".")]


def _is_folder(path: str) -> bool:
    try:
        os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    return True


def _list_folder(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: str, exc: OSError) -> StoreError:
    reason = f"cannot be read ({exc.strerror})"
    return StoreError(path, reason, "Give this user read and search permission, or check the mount")
