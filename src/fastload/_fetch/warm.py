"""``warm``: bring a model up to a tier, verified, once, however many ask for it at the same time.

::

    which snapshot ─► is it there? ─► lease ─► room ─► files in (admit) ─► publish ─► ref, link
                      └─ yes: done, nothing is written
"""

from __future__ import annotations

import os
import random
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastload._fetch.bring import Bringing, bring
from fastload._fetch.resolve import Snapshot, parse_model, snapshot_of, tiers_of
from fastload._fetch.source import Meant, find_meant, hub_of
from fastload._store.destination import CacheDestination, PlainDestination
from fastload._store.folder_offer import offer_stored, read_manifest
from fastload._store.layout import RepoLayout, lease_folder, repo_folder
from fastload._store.lease import LeaseTimes
from fastload._store.link import point_link
from fastload._store.publish import write_ref
from fastload._store.ref import DEFAULT_REVISION, Candidate, Name
from fastload._store.root import Root, Stored, read_commit
from fastload._store.stamp import source_is_unchanged
from fastload._store.waiting import wait_hold
from fastload._store.wanted import Wish
from fastload.errors import DeadlineError, ModelNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._progress import Callback
    from fastload._store.holder import Holder
    from fastload._store.lease import Lease
    from fastload._store.offer import Offer
    from fastload._verify.manifest import Manifest
    from fastload.options import Settings

_COMMIT_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmRequest:
    """What shall be brought where."""

    model: str | os.PathLike[str]
    revision: str | None = None
    to: str = "local"
    """``local``, ``shared`` (the first one), or the root of a cache."""
    wish: Wish = field(default_factory=Wish)
    plain: str | None = None
    """A folder that shall hold real files instead."""
    link: str | None = None
    """A path that shall be a link to the snapshot."""
    slots: int | None = None
    """How many may copy from a shared tier at once."""
    jitter_s: float = 0.0
    progress: bool | Callback | None = None
    tell: Callable[[str], None] = lambda _: None
    """Is told in a sentence what the work waits for."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What ``warm`` would do."""

    repo: str
    commit: str | None
    tier: str
    """Where the bytes are."""
    to: str
    files: tuple[tuple[str, int], ...]
    """Path and size of what would be brought; empty: it is there."""

    @property
    def nbytes(self) -> int:
        """Of all files."""
        return sum(size for _, size in self.files)


class Deadline:
    """The moment at which to give up."""

    def __init__(self, after_s: float | None, what: str) -> None:
        self._after_s = after_s
        self._what = what
        self._begin_s = time.monotonic()

    def check(self) -> None:
        """Raise ``DeadlineError`` once it is over."""
        if self._after_s is not None and time.monotonic() - self._begin_s > self._after_s:
            raise DeadlineError(self._after_s, self._what, "What was brought is kept: run it again to go on")


def warm(request: WarmRequest, settings: Settings) -> Snapshot:
    """See :func:`fastload.warm`."""
    deadline = Deadline(settings.deadline, f"warming {os.fspath(request.model)}")
    if request.jitter_s:
        time.sleep(random.uniform(0, request.jitter_s))  # noqa: S311 - spreads a fleet's requests, keeps no secret
    return _Warming(request, settings, deadline).run()


def plan_warm(request: WarmRequest, settings: Settings) -> Planned:
    """What :func:`warm` would do; writes nothing."""
    return _Warming(request, settings, Deadline(settings.deadline, "planning")).plan()


class _Warming:
    """One model on its way to one target."""

    def __init__(self, request: WarmRequest, settings: Settings, deadline: Deadline) -> None:
        self._request = request
        self._settings = settings
        self._deadline = deadline
        self._target = _target_of(request, settings)
        self._plain = PlainDestination(request.plain) if request.plain is not None else None
        self._meant = self._find()

    def _find(self) -> Meant:
        parsed = parse_model(self._request.model, self._request.revision, self._settings)
        if isinstance(parsed, Name):
            return find_meant(parsed, tiers_of(self._settings), self._target, hub_of(self._settings))
        return _meant_by_path(parsed)

    def run(self) -> Snapshot:
        """Bring it, unless it is there."""
        snapshot = self._find_there()
        if snapshot is None:
            with self._lease() as lease:
                snapshot = self._find_there() or self._bring(lease)
        revision = _moving_revision(self._meant.candidate)
        if revision is not None and snapshot.commit is not None and self._plain is None:
            write_ref(self._layout, revision, snapshot.commit)  # also where the snapshot was there before
        if self._request.link is not None:
            point_link(self._request.link, snapshot.path, self._target.path)
        return snapshot

    def plan(self) -> Planned:
        """What would be brought."""
        meant = self._meant
        if self._find_there() is not None:
            return Planned(meant.repo, meant.commit, "none", self._target.path, ())
        offer = self._offer()
        files = tuple((file.path, file.size) for file in self._request.wish.choose(offer.files))
        return Planned(meant.repo, meant.commit, offer.tier, self._target.path, files)

    @property
    def _layout(self) -> RepoLayout:
        return RepoLayout(repo_folder(self._target.path, self._meant.repo))

    def _find_there(self) -> Snapshot | None:
        """What the target has of it by a manifest that has all that is wished for."""
        if self._plain is not None:
            return self._find_in_plain(self._plain)
        commit = self._meant.commit or self._find_plain_commit()
        if commit is None:
            return None
        stored = self._target.find_commit(self._meant.repo, commit)
        manifest = read_manifest(self._layout, commit) if stored is not None else None
        return snapshot_of(stored) if stored is not None and self._is_met_by(manifest) else None

    def _find_in_plain(self, plain: PlainDestination) -> Snapshot | None:
        manifest = plain.find_manifest()
        if manifest is None or not self._is_met_by(manifest):
            return None
        is_it = manifest.commit == self._meant.commit
        if self._meant.commit is None:
            is_it = plain.is_unchanged(self._request.wish.choose(self._offer().files))
        return self._in_plain(manifest.commit) if is_it else None

    def _in_plain(self, commit: str) -> Snapshot:
        folder = self._request.plain or ""
        return Snapshot(path=folder, repo=self._meant.repo, commit=commit, tier="path", complete=True)

    def _is_met_by(self, manifest: Manifest | None) -> bool:
        return manifest is not None and self._request.wish.is_met_by(file.path for file in manifest.files)

    def _find_plain_commit(self) -> str | None:
        """The commit under which a plain folder was brought, if the folder has not changed since."""
        commit = read_commit(self._layout, None)
        if commit is None:
            return None
        wanted = self._request.wish.choose(self._offer().files)
        return commit if source_is_unchanged(self._layout.stamp(commit), wanted) else None

    def _offer(self) -> Offer:
        offer = self._meant.offer(besides="" if self._plain is not None else self._target.label)
        if offer is None:  # only the target has it, and without a manifest: it is read there, and gets one
            here = next((stored for stored in self._meant.stored if stored.tier == self._target.label), None)
            if here is None:
                raise ModelNotFoundError(str(self._meant.candidate), (self._target.path,), "Check the name")
            return offer_stored(here)
        return offer

    @contextmanager
    def _lease(self) -> Iterator[Lease | None]:
        """The right to be the one who brings it; None once another has."""
        name = self._meant.repo.replace("/", "--")
        what = f"warming {self._meant.candidate}"
        folder = os.path.join(self._plain.area.ours, "leases") if self._plain else lease_folder(self._target.path)
        lease = self._wait(folder, [name], what, lambda: self._find_there() is not None)
        with lease or nullcontext():
            yield lease

    def _wait(self, folder: str, names: list[str], what: str, is_done: Callable[[], bool]) -> Lease | None:
        told: list[str] = []

        def tell(holder: Holder) -> None:
            self._deadline.check()
            if told != [holder.id]:
                told[:] = [holder.id]
                self._request.tell(f"waiting for {holder}")

        return wait_hold(folder, names, what, LeaseTimes(), is_done=is_done, tell=tell)

    @contextmanager
    def _slot(self, offer: Offer) -> Iterator[None]:
        """One of the few places of those who copy from a shared tier at once."""
        if self._request.slots is None or not offer.tier.startswith("shared:"):
            yield
            return
        folder = lease_folder(offer.tier.removeprefix("shared:"))
        names = [f"slot-{number}" for number in range(self._request.slots)]
        lease = self._wait(folder, names, f"copying {offer.repo}", lambda: False)
        with lease or nullcontext():
            yield

    def _bring(self, lease: Lease | None) -> Snapshot:
        offer = self._offer()
        with self._slot(offer):
            brought = bring(
                Bringing(
                    offer=offer,
                    destination=self._plain or CacheDestination(self._layout),
                    root=self._request.plain or self._target.path,
                    evicts=self._plain is None and self._target.label == "local",
                    wish=self._request.wish,
                    settings=self._settings,
                    check=self._deadline.check,
                    progress=self._request.progress,
                    lease=lease,
                )
            )
        if self._plain is not None:
            return self._in_plain(brought.commit)
        return Snapshot(
            path=brought.folder,
            repo=self._meant.repo,
            commit=brought.commit,
            tier=self._target.label,
            complete=True,
        )


def _moving_revision(candidate: Candidate) -> str | None:
    return None if candidate.is_pinned else candidate.revision or DEFAULT_REVISION


def _target_of(request: WarmRequest, settings: Settings) -> Root:
    if request.to == "local":
        return Root(settings.local, label="local")
    if request.to == "shared":
        if not settings.shared:
            raise UsageError("there is no shared tier", "Set FASTLOAD_SHARED, or name a folder: --to /mnt/models")
        return Root(settings.shared[0], label=f"shared:{settings.shared[0]}")
    if not os.path.isabs(request.to):
        raise UsageError(f"--to {request.to!r} is no tier", "Write local, shared, or an absolute path")
    path = os.path.normpath(request.to)
    return Root(path, label="local" if path == settings.local else f"shared:{path}")


def _meant_by_path(path: str) -> Meant:
    """A plain folder that was named by its path."""
    name = os.path.basename(path)
    stored = Stored(
        tier="path", repo=name, commit=None, folder=path, layout=None, evidence="structure", missing=()
    )  # fmt: skip
    return Meant(candidate=Candidate(name, None), repo=name, commit=None, stored=(stored,), hub=None, learnt="path")
