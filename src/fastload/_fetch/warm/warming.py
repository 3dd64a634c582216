"""The steps of one warm, the same for any target.

::

    is it there? ─► lease ─► signed? ─► room ─► files in (admit) ─► publish ─► ref, link
         └─ yes, and signed, where a key is set: done, nothing is written
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from fastload._clock import Busy
from fastload._fetch.bring.bring import Bringing, bring
from fastload._fetch.evidence.keyed import check_copy
from fastload._fetch.find.passing import Passing
from fastload._fetch.find.resolve import snapshot_of
from fastload._fetch.warm.report import make_report
from fastload._fetch.warm.request import Planned
from fastload._read.ledger import Ledger, Purpose
from fastload._store.admit.link import point_link
from fastload._store.admit.remains import sweep_remains
from fastload._store.hub.client import SCRATCH_FILES, ClientOffer
from fastload._store.keep.scratch import Scratch
from fastload._store.wanted import check_has_weights
from fastload._store.watched_offer import WatchedOffer
from fastload._tier import HUB, PATH
from fastload.errors import FastloadError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._clock import Clock
    from fastload._fetch.bring.bring import Brought
    from fastload._fetch.find.meant import Meant
    from fastload._fetch.find.resolve import Snapshot
    from fastload._fetch.warm.request import WarmRequest
    from fastload._fetch.warm.sources import Sources
    from fastload._fetch.warm.target import Target
    from fastload._fetch.warm.turns import Turns
    from fastload._store.admit.remains import Leased
    from fastload._store.lease.lease import Lease
    from fastload._store.offer import Offer
    from fastload._store.stored import PlainFolder, Stored
    from fastload.options import Settings
    from fastload.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Warming:
    """One model on its way to one target."""

    request: WarmRequest
    settings: Settings
    sources: Sources
    turns: Turns
    check: Callable[[], None]
    """Raises when it is time to give up."""
    clock: Clock
    ledger: Ledger = field(default_factory=Ledger)
    """Of all sources that are tried."""
    busy: Busy = field(default_factory=Busy)
    """Of all of them, as the clock's stages are."""

    @property
    def _meant(self) -> Meant:
        return self.sources.meant

    @property
    def _target(self) -> Target:
        return self.sources.target

    @property
    def _leased(self) -> Leased:
        return self._target.leased(self._meant)

    def run(self) -> Snapshot:
        """Bring it, unless it is there."""
        in_place = self._find_in_place()
        snapshot = self._bring_up() if in_place is None else snapshot_of(in_place)
        if self.request.link is not None:
            point_link(self.request.link, snapshot.path)
        return snapshot

    def plan(self) -> Planned:
        """What would be brought."""
        meant, to = self._meant, self._target.path
        if self._find_in_place() is not None or self._find_held() is not None:
            return Planned(meant.repo, meant.commit, "none", to, ())
        offer = self.sources.first()
        wanted = self.request.wish.choose(offer.files)
        check_has_weights(self.request.wish, offer.files, offer.repo)
        return Planned(meant.repo, meant.commit, str(offer.tier), to, tuple((file.path, file.size) for file in wanted))

    def _bring_up(self) -> Snapshot:
        """What the target has now, and what was asked for leads to."""
        report, commit = None, self._find_held()
        if commit is not None:
            sweep_remains(self._leased)
            self._point(commit)  # also where the snapshot was there before
        else:
            with self.turns.bringing(self._leased, self._meant, self._is_done) as lease:
                commit = self._find_held()
                if commit is None:
                    commit, report = self._bring(lease)
                    self._check(self._target.stored(self._meant, commit))  # some of it may have been there before
                self._point(commit)
        return replace(self._target.snapshot(self._meant, commit), report=report)

    def _find_in_place(self) -> PlainFolder | None:
        if self._meant.in_place is not None:
            self._check(self._meant.in_place)
        return self._meant.in_place

    def _find_held(self) -> str | None:
        commit = self._target.find_held(self._meant, self.sources.is_unchanged)
        if commit is not None:
            self._check(self._target.stored(self._meant, commit))
        return commit

    def _check(self, stored: Stored) -> None:
        """With a key, a path is no answer that leads to what its holder has not signed."""
        if self.sources.key is not None:
            check_copy(stored, self.request.wish, self.sources.key, self._meant.manifests)

    def _is_done(self) -> bool:
        commit = self._find_held()
        return commit is not None and self._target.leads_to(self._meant, commit)

    def _point(self, commit: str) -> None:
        self._target.point(self._meant, commit, self.turns.at_look())

    def _bring(self, lease: Lease | None) -> tuple[str, Report]:
        """Bring it from the first that can give the right bytes; what came well of it is not brought again."""
        passing = Passing()
        for offer in self.sources.offers(passing):
            brought = self._bring_from(offer, lease, passing)
            if brought is not None:
                report = self._report(offer, brought, passing)
                if self.request.list_path is not None and brought.is_new:
                    self._target.mark_listed(self._meant, brought.commit, self.request.list_path)
                return brought.commit, report
        raise self.sources.nobody(passing)

    def _report(self, offer: Offer, brought: Brought, passing: Passing) -> Report:
        device = self._target.snapshot(self._meant, brought.commit).tier
        report = make_report(offer, brought, self.clock, self.ledger, learnt=self._meant.learnt, device=device)
        return replace(report, reader_reason=passing.reason or report.reader_reason)

    def _bring_from(self, offer: Offer, lease: Lease | None, passing: Passing) -> Brought | None:
        """What was brought; None where it is ``offer`` that cannot give it."""
        with self.turns.copying(offer, lease) as slot, self._carried(offer) as (carried, scratch):
            watched = WatchedOffer(carried)
            try:
                return bring(replace(self._job(watched, lease, slot), scratch=scratch))
            except FastloadError as exc:
                if not isinstance(exc, IntegrityError) and not watched.has_failed_by(exc):
                    raise
                passing.over(offer.tier, exc)
                return None

    @contextmanager
    def _carried(self, offer: Offer) -> Iterator[tuple[Offer, Scratch | None]]:
        """The offer itself; with ``transfer="hub"``, what the hub's own client brings of it, and where to."""
        if self.settings.transfer != "hub" or offer.tier != HUB:
            yield offer, None
            return
        hub, parts = self.settings.hub, self._target.destination(self._meant).area.parts
        with (
            closing(Scratch(parts, SCRATCH_FILES)) as scratch,
            closing(ClientOffer(offer, hub.endpoint, scratch.files, hub.token)) as carried,
        ):
            yield carried, scratch

    def _job(self, offer: Offer, lease: Lease | None, slot: Lease | None) -> Bringing:
        room = self._target.room
        return Bringing(
            offer=offer,
            destination=self._target.destination(self._meant),
            root=room.folder,
            evicts=room.evicts,
            wish=self.request.wish,
            settings=self.settings,
            check=self.check,
            progress=self.request.progress,
            lease=lease,
            slot=slot,
            in_order=offer.tier != HUB,
            clock=self.clock,
            busy=self.busy,
            came=partial(self.ledger.note, offer.tier, Purpose.WEIGHTS),
            was_here=partial(self.ledger.note, self._target.own_tier or PATH, Purpose.HERE),
        )
