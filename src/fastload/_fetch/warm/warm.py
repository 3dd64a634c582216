"""``warm``: bring a model up to a tier, verified, once, however many ask for it at the same time.

::

    which snapshot ─► is it there? ─► lease ─► room ─► files in (admit) ─► publish ─► ref, link
                      └─ yes: done, nothing is written
"""

from __future__ import annotations

import os
import random
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._clock import Clock
from fastload._fetch.bring.bring import Bringing, bring
from fastload._fetch.deadline import Deadline
from fastload._fetch.evidence.weigh import manifests_of
from fastload._fetch.find.beside import Beside, find_beside
from fastload._fetch.find.given import meant_by_path
from fastload._fetch.find.passing import Passing
from fastload._fetch.find.resolve import Snapshot, parse_model, snapshot_of, tiers_of
from fastload._fetch.find.source import find_meant, hub_of
from fastload._fetch.warm.report import make_report
from fastload._fetch.warm.request import Planned
from fastload._fetch.warm.target import choose_target
from fastload._fetch.warm.turns import Turns
from fastload._store.admit.destination import CacheDestination, PlainDestination
from fastload._store.admit.link import check_link, point_link
from fastload._store.admit.reference import leads_to, write_ref
from fastload._store.admit.remains import Leased, sweep_remains
from fastload._store.admit.stamp import source_is_unchanged
from fastload._store.hub.client import SCRATCH_FILES, ClientOffer
from fastload._store.hub.tier import HubOffer, Patience
from fastload._store.keep.listed import mark_listed
from fastload._store.keep.scratch import Scratch
from fastload._store.layout import RepoLayout, lease_folder, repo_folder
from fastload._store.ref import Name, name_of
from fastload._store.root import read_commit
from fastload._store.wanted import check_has_weights
from fastload._store.watched_offer import WatchedOffer
from fastload.errors import FastloadError, HubError, IntegrityError, ModelNotFoundError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from fastload._fetch.bring.bring import Brought
    from fastload._fetch.find.source import Meant
    from fastload._fetch.warm.request import WarmRequest
    from fastload._store.admit.destination import Destination
    from fastload._store.hub.tier import HubTier
    from fastload._store.lease.lease import Lease
    from fastload._store.offer import Offer
    from fastload.options import Settings
    from fastload.report import Report

_HALF = ". The hub gets half of the deadline, {:g} s, so that what is there can serve: give it longer"
_KEPT = "What was brought is kept: run it again to go on"


def warm(request: WarmRequest, settings: Settings) -> Snapshot:
    """See :func:`fastload.warm`."""
    deadline = Deadline(settings.deadline, f"warming {name_of(request.model)}", _KEPT)
    if request.jitter_s:
        pause_s = random.uniform(0, request.jitter_s)  # noqa: S311 - spreads a fleet's requests, keeps no secret
        time.sleep(min(pause_s, settings.deadline) if settings.deadline is not None else pause_s)
        deadline.check()

    def bring_up() -> Snapshot:
        with _hub(settings) as hub:
            return _Warming(request, settings, deadline, hub).run()

    return deadline.within(bring_up)


def plan_warm(request: WarmRequest, settings: Settings) -> Planned:
    """What :func:`warm` would do; writes nothing."""
    deadline = Deadline(settings.deadline, f"planning to warm {name_of(request.model)}")

    def plan() -> Planned:
        with _hub(settings) as hub:
            return _Warming(request, settings, deadline, hub).plan()

    return deadline.within(plan)


@contextmanager
def _hub(settings: Settings) -> Iterator[HubTier | None]:
    # Half of the time, so that what is there can still serve where the hub does not answer.
    longest_s = settings.deadline / 2 if settings.deadline is not None else None
    hub, begin_s = hub_of(settings, Patience().within(longest_s)), time.monotonic()
    try:
        yield hub
    except NetworkError as exc:
        if longest_s is not None and time.monotonic() - begin_s >= longest_s:
            exc.hint += _HALF.format(longest_s)
        raise
    finally:
        if hub is not None:
            hub.close()


class _Warming:
    """One model on its way to one target."""

    def __init__(self, request: WarmRequest, settings: Settings, deadline: Deadline, hub: HubTier | None) -> None:
        self._request = request
        self._settings = settings
        self._deadline = deadline
        self._target = choose_target(request, settings)
        self._turns = Turns(request, deadline.check)
        if request.link is not None:
            check_link(request.link, self._target.path)
        self._report: Report | None = None
        self._clock = Clock()
        self._plain = PlainDestination(request.plain) if request.plain is not None else None
        self._meant = replace(self._find(hub), manifests=manifests_of(settings))

    def _find(self, hub: HubTier | None) -> Meant:
        parsed = parse_model(self._request.model, self._request.revision, self._settings)
        if not isinstance(parsed, Name):
            return meant_by_path(parsed)
        tiers = tiers_of(self._settings)
        if self._plain is None or self._request.plain is None:
            return find_meant(parsed, tiers, self._target, hub)
        holds = self._plain.find_held(self._request.wish, must_be_sure=False)
        return find_beside(parsed, Beside(self._request.plain, holds, tiers, self._target), hub)

    def run(self) -> Snapshot:
        """Bring it, unless it is there."""
        in_place = self._meant.in_place if self._plain is None else None
        snapshot = self._snapshot(self._bring_up()) if in_place is None else snapshot_of(in_place)
        if self._request.link is not None:
            point_link(self._request.link, snapshot.path)
        return snapshot

    def _bring_up(self) -> str:
        """The commit that the target has now, and its ref leads to."""
        commit = self._find_there()
        if commit is not None:
            sweep_remains(self._leased)
            self._point(commit)  # also where the snapshot was there before
            return commit
        with self._lease() as lease:
            commit = self._find_there() or self._bring(lease)
            self._point(commit)
        return commit

    def _point(self, commit: str) -> None:
        if self._plain is None:
            write_ref(self._layout, self._revision, commit, tell=self._turns.teller())

    @property
    def _revision(self) -> str | None:
        """The moving revision that shall lead to it; a plain folder has none."""
        return self._meant.candidate.moving_revision if self._plain is None else None

    def _snapshot(self, commit: str) -> Snapshot:
        path, tier = self._layout.snapshot(commit), self._target.label
        if self._request.plain is not None:
            path, tier = self._request.plain, "path"
        return Snapshot(
            path=path, repo=self._meant.repo, commit=commit, tier=tier, complete=True, report=self._report
        )  # fmt: skip

    def plan(self) -> Planned:
        """What would be brought."""
        meant, to = self._meant, self._request.plain or self._target.path
        is_in_place = meant.in_place is not None and self._plain is None
        if is_in_place or self._find_there() is not None:
            return Planned(meant.repo, meant.commit, "none", to, ())
        offer = self._first_offer()
        wanted = self._request.wish.choose(offer.files)
        check_has_weights(self._request.wish, offer.files, offer.repo)
        return Planned(meant.repo, meant.commit, offer.tier, to, tuple((file.path, file.size) for file in wanted))

    @property
    def _layout(self) -> RepoLayout:
        return RepoLayout(repo_folder(self._target.path, self._meant.repo))

    @property
    def _destination(self) -> Destination:
        return self._plain or CacheDestination(self._layout)

    def _find_there(self) -> str | None:
        """The commit, if the target has it by a manifest, with all that is wished for."""
        wish, must_be_sure = self._request.wish, self._meant.hub is not None
        if self._plain is not None:
            held, meant = self._plain.find_held(wish, must_be_sure=must_be_sure), self._meant.commit
            commit = held.commit if held is not None else None
            is_it = commit == meant if meant is not None else self._is_unchanged(self._plain.stamp)
            return commit if is_it else None
        commit = self._meant.commit or self._find_plain_commit()
        if commit is None or not CacheDestination(self._layout).is_met(commit, wish, must_be_sure=must_be_sure):
            return None
        return commit

    def _find_plain_commit(self) -> str | None:
        """The commit under which a plain folder was brought, if the folder has not changed since."""
        commit = read_commit(self._layout, self._meant.candidate.moving_revision)
        return commit if commit is not None and self._is_unchanged(self._layout.stamp(commit)) else None

    def _is_unchanged(self, stamp: str) -> bool:
        """True if the plain folder is as it was when it was brought."""
        return source_is_unchanged(stamp, self._request.wish.choose(self._first_offer().files))

    def _offers(self, passing: Passing) -> Iterator[Offer]:
        """What gives the files, the best first."""
        target = None if self._plain is not None else self._target.label
        try:
            for offer in self._meant.offers(target, self._request.wish, passing):
                passing.tell(offer.tier)
                yield offer
        except HubError as exc:  # it is asked last
            passing.over("hub", exc)

    def _first_offer(self) -> Offer:
        passing = Passing()
        for offer in self._offers(passing):
            return offer
        raise passing.error or self._nobody()

    def _nobody(self) -> ModelNotFoundError:
        return ModelNotFoundError(str(self._meant.candidate), (self._target.path,), "Check the name")

    def _lease(self) -> AbstractContextManager[Lease | None]:
        """The right to be the one who brings it; None once another has."""
        return self._turns.bringing(self._leased, self._meant, self._is_done)

    def _is_done(self) -> bool:
        commit = self._find_there()
        return commit is not None and leads_to(self._layout, self._revision, commit)

    @property
    def _leased(self) -> Leased:
        area = self._destination.area
        folder = os.path.join(area.ours, "leases") if self._plain else lease_folder(self._target.path)
        return Leased(folder, self._meant.repo.replace("/", "--"), area)

    def _bring(self, lease: Lease | None) -> str:
        """Bring it from the first that can give the right bytes; what came well of it is not brought again."""
        passing = Passing()
        for offer in self._offers(passing):
            brought = self._bring_from(offer, lease, passing)
            if brought is None:
                continue
            learnt, device = self._meant.learnt, self._snapshot(brought.commit).tier
            report = make_report(offer, brought, self._clock, learnt=learnt, device=device)
            self._report = replace(report, reader_reason=passing.reason or report.reader_reason)
            if self._request.list_path is not None and brought.is_new and device == "local":
                mark_listed(self._layout, brought.commit, self._request.list_path)
            return brought.commit
        raise passing.error or self._nobody()

    def _bring_from(self, offer: Offer, lease: Lease | None, passing: Passing) -> Brought | None:
        """What was brought; None where it is ``offer`` that cannot give it."""
        with self._turns.copying(offer, lease) as slot, self._carried(offer) as (carried, scratch):
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
        if self._settings.transfer != "hub" or not isinstance(offer, HubOffer):
            yield offer, None
            return
        hub = self._settings.hub
        with (
            closing(Scratch(self._destination.area.parts, SCRATCH_FILES)) as scratch,
            closing(ClientOffer(offer, hub.endpoint, scratch.files, hub.token)) as carried,
        ):
            yield carried, scratch

    def _job(self, offer: Offer, lease: Lease | None, slot: Lease | None) -> Bringing:
        return Bringing(
            offer=offer,
            destination=self._destination,
            root=self._target.path if self._plain is None else self._plain.area.ours,
            evicts=self._plain is None and self._target.label == "local",
            wish=self._request.wish,
            settings=self._settings,
            check=self._deadline.check,
            progress=self._request.progress,
            lease=lease,
            slot=slot,
            in_order=offer.tier != "hub",
            clock=self._clock,
        )
