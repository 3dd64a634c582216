"""One round: bring what is listed, prove it again, and let go of what is listed no more."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fastload._fetch.find.local import local_folder
from fastload._fetch.verify.examination import Examination
from fastload._fetch.verify.examine import examine
from fastload._fetch.warm.warm import warm
from fastload._store.keep.evict import IDLE_S, release
from fastload._store.keep.listed import let_go, mark_if_listed
from fastload._store.layout import RepoLayout, repo_folder
from fastload._tier import LOCAL, parse_tier
from fastload.errors import FastloadError, quoted
from fastload.ops.warmer.wanted_list import read_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastload._fetch.find.resolve import Snapshot
    from fastload._fetch.verify.verification import Verification
    from fastload._fetch.warm.request import WarmRequest
    from fastload.ops.warmer.wanted_list import Wanted
    from fastload.options import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What is done in each round."""

    list_path: str
    request: Callable[[str], WarmRequest]
    """For one name."""
    settings: Settings
    rechecks: bool
    prunes: bool
    idle_s: float = IDLE_S
    """What was used since is not pruned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one name."""

    model: str
    snapshot: Snapshot | None
    error: FastloadError | None
    """Why there is no snapshot, or why it is not right."""
    found: Verification | None = None
    """What a recheck found, and mended."""

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types."""
        found = {} if self.snapshot is None else asdict(self.snapshot)
        failed = {} if self.error is None else {"error": self.error.to_dict(), "exit_code": self.error.exit_code}
        mended = {} if self.found is None else {"mended": [asdict(finding) for finding in self.found.findings]}
        return {"model": self.model, **found, **mended, **failed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round did."""

    models: tuple[Outcome, ...]
    pruned: tuple[str, ...]
    """``repo@commit`` of each snapshot that went."""
    not_pruned: str | None = None
    """Why all stays, where pruning was asked for."""
    problem: FastloadError | None = None
    """What kept the list from being read, or pruning from being done."""

    @property
    def is_ready(self) -> bool:
        """True if all that is listed is there, and right."""
        return self.problem is None and all(outcome.error is None for outcome in self.models)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types."""
        problem = None if self.problem is None else self.problem.to_dict()
        models = [outcome.to_dict() for outcome in self.models]
        gone = {"pruned": list(self.pruned), "not_pruned": self.not_pruned}
        return {"schema": 1, "ready": self.is_ready, "models": models, **gone, "problem": problem}


def run_round(upkeep: Upkeep) -> Round:
    """Do all of it; whatever fails is in the result."""
    try:
        wanted = read_list(upkeep.list_path)
    except FastloadError as exc:
        return Round(models=(), pruned=(), problem=exc)
    outcomes = tuple(_keep_up(name, upkeep) for name in wanted.names)
    if not upkeep.prunes:
        return Round(models=outcomes, pruned=())
    try:
        reason = _find_reason_to_keep(wanted, outcomes, upkeep.list_path)
        if reason is not None:
            return Round(models=outcomes, pruned=(), not_pruned=reason)
        pruned = _prune([outcome.snapshot for outcome in outcomes if outcome.snapshot is not None], upkeep)
    except FastloadError as exc:
        return Round(models=outcomes, pruned=(), problem=exc)
    return Round(models=outcomes, pruned=tuple(pruned))


def _find_reason_to_keep(wanted: Wanted, outcomes: Iterable[Outcome], list_path: str) -> str | None:
    """Why nothing may go: what is wanted is not known for sure. Too much kept costs room, too much removed a start."""
    if not wanted.names:
        return "the list names nothing; to be rid of all that fastload brought: fastload prune --max-bytes 0"
    if wanted.is_cut:
        return "the list ends in the midst of a line, so it may be half-written; end its last line"
    failed = next((outcome.model for outcome in outcomes if outcome.snapshot is None), None)
    if failed is not None:
        return f"{quoted(failed)} failed, so it is not known what that name means"
    return "the list has changed meanwhile" if read_list(list_path) != wanted else None


def _keep_up(name: str, upkeep: Upkeep) -> Outcome:
    try:
        snapshot = warm(replace(upkeep.request(name), list_path=upkeep.list_path), upkeep.settings)
        _claim(snapshot, upkeep)
    except FastloadError as exc:
        return Outcome(model=name, snapshot=None, error=exc)
    found: Verification | None = None
    if upkeep.rechecks and snapshot.report is None:
        try:
            found = examine(_examination(snapshot), upkeep.settings)
            found.check()
        except FastloadError as exc:
            return Outcome(model=name, snapshot=snapshot, error=exc)
    return Outcome(model=name, snapshot=snapshot, error=None, found=found)


def _claim(snapshot: Snapshot, upkeep: Upkeep) -> None:
    """So that another list, which brought it, does not take it away."""
    if parse_tier(snapshot.tier) == LOCAL and snapshot.repo is not None and snapshot.commit is not None:
        layout = RepoLayout(repo_folder(upkeep.settings.local, snapshot.repo))
        mark_if_listed(layout, snapshot.commit, upkeep.list_path)


def _examination(snapshot: Snapshot) -> Examination:
    """Of what was asked for, by its path: by its name another tier may have it, too."""
    return Examination(snapshot.path, None, repairs=True, records=False, include=())


def _prune(wanted: Sequence[Snapshot], upkeep: Upkeep) -> Iterable[str]:
    """Remove what a list brought once, and no list names now; this one speaks for itself alone."""
    root = local_folder(upkeep.settings)
    kept = {(snapshot.repo, snapshot.commit) for snapshot in wanted}

    def is_unwanted(repo: str, commit: str) -> bool:
        return (repo, commit) not in kept and let_go(RepoLayout(repo_folder(root, repo)), commit, upkeep.list_path)

    return [f"{each.repo}@{each.commit}" for each in release(root, is_unwanted, idle_s=upkeep.idle_s)]
