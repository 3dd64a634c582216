"""From a name to one snapshot on the local tier, for those who change something there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.keep.usage import list_snapshots
from fastload._store.ref import Name, parse_ref
from fastload._store.repo_refs import list_refs, read_commit
from fastload._store.root import Root
from fastload._store.stored import PlainFolder
from fastload._tier import LOCAL, TierKind
from fastload.errors import ModelNotFoundError, UsageError

if TYPE_CHECKING:
    import os

    from fastload._store.layout import RepoLayout
    from fastload.options import Settings


NOWHERE = "there is no local tier: nobody named it, and this user has no home (HOME is not set)"


@dataclass(frozen=True, slots=True)
class Local:
    """One snapshot on the local tier, in the hub's layout."""

    repo: str
    commit: str
    layout: RepoLayout

    def __str__(self) -> str:
        return f"{self.repo}@{self.commit}"


def local_folder(settings: Settings) -> str:
    """Where the local tier is, whether it may be asked or not.

    Raises:
        UsageError: nowhere.
    """
    if not settings.local:
        raise UsageError(NOWHERE, "Set FASTLOAD_LOCAL to a folder that this user may write, or HOME")
    return settings.local


def local_root(settings: Settings) -> str:
    """The local tier's folder.

    Raises:
        UsageError: it is nowhere, or the settings do not allow it.
    """
    folder = local_folder(settings)
    if TierKind.LOCAL not in settings.tiers:
        raise UsageError("the local tier may not be asked (tiers)", "Add local to the setting tiers")
    return folder


def find_local(model: str | os.PathLike[str], revision: str | None, settings: Settings) -> Local:
    """The snapshot that ``model`` means on the local tier, complete or not: the first candidate's that is there.

    Raises:
        ModelNotFoundError: there is none.
        UsageError: it is a path, or means a plain folder.
        StoreError: it cannot be read.
    """
    root = Root(local_root(settings), LOCAL)
    name = parse_ref(model, revision, settings.aliases)
    if isinstance(name, str):
        raise UsageError(f"{name!r} is a path", "Give the name of a model, as 'fastload ls' shows it")
    for candidate in name.candidates:
        layout = root.enter(candidate.repo)
        commit = read_commit(layout, candidate.revision)
        if commit is not None and commit in list_snapshots(layout):
            return Local(candidate.repo, commit, layout)
        plain = root.find(candidate, is_alias=name.is_alias)
        if isinstance(plain, PlainFolder):
            hint = "fastload keeps its hands off it: it is never evicted, and needs no pin. Remove it yourself"
            raise UsageError(f"{plain.folder!r} is a plain folder", hint)
    raise ModelNotFoundError(name.text, (root.path,), _name_others(name, root))


def _name_others(name: Name, root: Root) -> str:
    """What else there is of the repo: without a ref that leads to it, a snapshot has its commit for a name only."""
    others: list[str] = []
    for candidate in name.candidates:
        layout = root.enter(candidate.repo)
        refs = list_refs(layout)
        others += [f"{candidate.repo}@{revision}" for revision in sorted(refs)]
        others += [f"{candidate.repo}@{commit}" for commit in list_snapshots(layout) if commit not in refs.values()]
    return f"There is: {', '.join(others[:8])}" if others else "'fastload ls' shows what is there"
