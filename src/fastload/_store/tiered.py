"""The tiers in their order: the first one that has a name complete serves it.

The local tier is asked first and alone, so that whatever happens to a mount delays nothing that is here. An alias tries
all its candidates on one tier before the next tier is asked.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.patience import ask_all
from fastload._store.stored import PlainFolder
from fastload._tier import LOCAL, Tier
from fastload.errors import ModelNotFoundError, StoreError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastload._store.ref import Name
    from fastload._store.root import Root
    from fastload._store.stored import CachedSnapshot, Stored

PATIENCE_S = 4.0
"""For all mounts together; what is asked of them must be over within 5 s."""
_NAMES_PATIENCE_S = 0.5
_NEAR_COUNT = 3
_ALIKE = 0.5
_ALIKE_AT_THE_END = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiers:
    """The tiers that are folders and may be asked."""

    local: Root | None
    shared: tuple[Root, ...]

    @property
    def roots(self) -> tuple[Root, ...]:
        """All of them, in order."""
        return ((self.local,) if self.local else ()) + self.shared

    def without(self, tier: Tier) -> Tiers:
        """All but that one."""
        local = None if tier == LOCAL else self.local
        return Tiers(local=local, shared=tuple(root for root in self.shared if root.tier != tier))


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What the tiers said of a name."""

    name: Name
    found: Stored | None
    """The copy that serves; None: none is complete."""
    incomplete: tuple[Stored, ...]
    silent: tuple[tuple[Tier, str], ...]
    """Tiers that could not say, and why."""
    tiers: Tiers

    @property
    def damaged(self) -> PlainFolder | None:
        """The first that lacks only what a manifest beside it says that it should have, where no copy is complete."""
        plain = (stored for stored in self.incomplete if isinstance(stored, PlainFolder))
        return next((stored for stored in plain if stored.is_damaged), None)

    def miss(self, *further: str) -> ModelNotFoundError:
        """The error for a name that no tier holds complete; ``further`` are other places that were asked."""
        searched = [*(root.path for root in self.tiers.roots), *further]
        hints = [
            *self._describe_incomplete(),
            *self._describe_silent(),
            *self._describe_commits(),
            *self._describe_near(),
        ]
        return ModelNotFoundError(self.name.text, tuple(searched), ". ".join(hints) or "Check the name")

    def miss_with_hub(self, hub: str) -> ModelNotFoundError:
        """The same where ``hub`` might have been asked, which it never is for a bare name."""
        if not all(candidate.is_bare for candidate in self.name.candidates):
            return self.miss(hub)
        miss = self.miss()
        hint = f"A name without org/ is not looked for at the hub: write org/{self.name.candidates[0].repo}"
        return ModelNotFoundError(miss.model, miss.searched, f"{miss.hint}. {hint}")

    @property
    def _answering(self) -> tuple[Root, ...]:
        """Who did not answer once is not waited for again."""
        silent = {tier for tier, _ in self.silent}
        return tuple(root for root in self.tiers.roots if root.tier not in silent)

    def _describe_incomplete(self) -> Iterable[str]:
        for stored in self.incomplete:
            yield f"Incomplete in {quoted(stored.folder)} ({'; '.join(stored.missing[:3])}): fastload warm completes it"

    def _describe_silent(self) -> Iterable[str]:
        for tier, reason in self.silent:
            yield f"{tier} could not be asked ({reason})"

    def _describe_commits(self) -> Iterable[str]:
        """What is there of it that no ref leads to, since it was brought by its commit, say."""
        asked = ask_all(self._answering, self._list_commits, patience_s=_NAMES_PATIENCE_S)
        for root, stored in asked.replies:
            if stored:
                refs = ", ".join(quoted(f"{each.repo}@{each.commit}") for each in stored)
                yield f"{root.tier} has it as {refs}: name the commit"

    def _list_commits(self, root: Root) -> list[CachedSnapshot]:
        repos = dict.fromkeys(candidate.repo for candidate in self.name.candidates)
        return [stored for repo in repos for stored in root.list_commits(repo) if stored.is_complete]

    def _describe_near(self) -> Iterable[str]:
        asked = ask_all(self._answering, lambda root: [*root.list_models()], patience_s=_NAMES_PATIENCE_S)
        known = sorted({*self.name.aliases, *(model for _, models in asked.replies for model in models)})
        wanted = {candidate.repo for candidate in self.name.candidates}
        near = {match for name in wanted for match in _find_near(name, known)} - wanted
        if near:
            yield f"Nearest: {', '.join(map(quoted, sorted(near)))}"


def search(name: Name, tiers: Tiers, *, patience_s: float = PATIENCE_S) -> Search:
    """Ask the tiers for ``name``, mounts for ``patience_s`` at most; reads only."""
    incomplete: list[Stored] = []
    silent: list[tuple[Tier, str]] = []
    if tiers.local is not None:
        try:
            stored = _pick(_find(name, tiers.local), incomplete)
        except StoreError as exc:
            silent.append((tiers.local.tier, exc.reason))
        else:
            if stored is not None:
                return Search(name=name, found=stored, incomplete=(), silent=(), tiers=tiers)
    answers = ask_all(
        tiers.shared,
        lambda root: _find(name, root),
        patience_s=patience_s,
        is_enough=lambda found: any(stored.is_complete for stored in found),
    )
    silent += [(root.tier, reason) for root, reason in answers.silent]
    found = None
    for _, stored_there in answers.replies:
        found = found or _pick(stored_there, incomplete)
    return Search(name=name, found=found, incomplete=tuple(incomplete), silent=tuple(silent), tiers=tiers)


def _find(name: Name, root: Root) -> list[Stored]:
    """What ``root`` has of each candidate, up to the first one that is complete."""
    found: list[Stored] = []
    for candidate in name.candidates:
        stored = root.find(candidate, is_alias=name.is_alias)
        if stored is not None:
            found.append(stored)
            if stored.is_complete:
                break
    return found


def _pick(found: Sequence[Stored], incomplete: list[Stored]) -> Stored | None:
    """The complete one; the others join ``incomplete``."""
    incomplete += [stored for stored in found if not stored.is_complete]
    return next((stored for stored in found if stored.is_complete), None)


def _find_near(name: str, known: Sequence[str]) -> Iterable[str]:
    """Names that are spelled nearly so, and those of other organisations, or of none, that end nearly so."""
    yield from difflib.get_close_matches(name, known, n=_NEAR_COUNT, cutoff=_ALIKE)
    by_end: dict[str, list[str]] = {}
    for model in known:
        by_end.setdefault(model.rpartition("/")[2], []).append(model)
    for end in difflib.get_close_matches(name.rpartition("/")[2], by_end, n=_NEAR_COUNT, cutoff=_ALIKE_AT_THE_END):
        yield from by_end[end][:_NEAR_COUNT]
