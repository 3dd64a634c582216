"""Who else has what a stored snapshot has wrong: the other tiers that are folders, in their order, and then the hub."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.find.hub import hub_of
from fastload._fetch.find.resolve import tiers_of
from fastload._store.folder_offer import offer_stored
from fastload._store.hub.tier import Patience
from fastload._store.patience import ask_all
from fastload._store.tiered import PATIENCE_S
from fastload.errors import FastloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._store.hub.tier import HubTier
    from fastload._store.offer import Offer
    from fastload._store.root import Root
    from fastload._store.stored import Stored
    from fastload.options import Settings

_log = logging.getLogger("fastload")

_SOON = Patience(
    attempts=3, give_up_after_s=4.0, longest_pause_s=1.0, connect_timeout_s=5.0, read_timeout_s=5.0
)  # fmt: skip
"""A load waits for it: a hub that does not answer within ten seconds is no better source."""


class BetterSources:
    """What other tiers offer of one stored snapshot. Threads may share it."""

    def __init__(self, stored: Stored, settings: Settings) -> None:
        self._stored = stored
        self._tiers = tiers_of(settings)
        self._settings = settings
        self._hub: HubTier | None = None
        self._lock = threading.Lock()
        self._offers: list[Offer] | None = None

    def offers(self) -> tuple[Offer, ...]:
        """In the order in which they are asked for bytes. They are asked what they have once."""
        with self._lock:
            if self._offers is None:
                self._offers = [*self._find()]
            return tuple(self._offers)

    def forget(self, offer: Offer) -> None:
        """``offer`` does not answer: whoever waited for it once need not wait again, for each block."""
        with self._lock:
            if self._offers is not None and offer in self._offers:
                self._offers.remove(offer)

    def _find(self) -> Iterator[Offer]:
        """What other tiers offer; one that cannot say is no better source."""
        others = [root for root in self._tiers.roots if root.tier != self._stored.tier]
        asks: list[Callable[[], Offer | None]] = [partial(self._ask_root, root) for root in others]
        for ask in (*asks, self._ask_the_hub):
            try:
                offer = ask()
            except FastloadError as exc:
                _log.info("%s cannot be mended from everywhere: %s", self._stored.repo, exc)
            else:
                if offer is not None:
                    yield offer

    def _ask_root(self, root: Root) -> Offer | None:
        """What ``root`` offers; a mount that hangs is no better source."""
        asked = ask_all((root,), self._find_at, patience_s=PATIENCE_S)
        return next((offer for _, offer in asked.replies), None)

    def _find_at(self, root: Root) -> Offer | None:
        commit = self._stored.noted_commit
        snapshot = root.find_commit(self._stored.repo, commit) if commit is not None else None
        stored = snapshot or root.find_plain(self._stored.repo)
        return offer_stored(stored) if stored is not None else None

    def _ask_the_hub(self) -> Offer | None:
        repo, commit = self._stored.repo, self._stored.noted_commit
        if commit is None or "/" not in repo:
            return None
        self._hub = hub_of(self._settings, _SOON)  # not before: who needs no repair needs no hub that can be asked
        return self._hub.find(repo, commit) if self._hub is not None else None

    def close(self) -> None:
        """Close what was opened to ask."""
        if self._hub is not None:
            self._hub.close()
