"""Resolve → headers: everything about a checkpoint that needs neither torch nor its weights.

::

    a path ──────────────────────────────────► by_path
    a name ─► which tier has it? ─┬─ a folder ─► by_copy ─┬─► Fetched
                                  │                       └─ lost, unreadable: the next tier, the same commit
                                  └─ the hub ──► by_hub
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.checkpoint.by_copy import Serving, fetch_copy
from fastload._fetch.checkpoint.by_hub import fetch_from_hub
from fastload._fetch.checkpoint.by_path import fetch_path
from fastload._fetch.checkpoint.fetched import Fetched, FetchRequest
from fastload._fetch.checkpoint.unnamed import warn_of_unnamed
from fastload._fetch.deadline import Deadline
from fastload._fetch.find.hub import hub_of
from fastload._fetch.find.only_hub import find_offer
from fastload._fetch.find.passing import LostError, Passing
from fastload._fetch.find.resolve import parse_model, require, tiers_of
from fastload._read.ledger import Ledger
from fastload._store.hub.tier import Patience
from fastload._store.ref import Candidate, Name
from fastload._store.tiered import Tiers, search
from fastload.errors import DeadlineError, FastloadError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.find.model import Source
    from fastload.options import Settings

_log = logging.getLogger("fastload")

_BETTER_SOURCE_S = 10.0
"""A hub that cannot be reached within that is no better source than a mount."""


def fetch(
    source: Source,
    settings: Settings,
    deadline: Deadline | None = None,
    when_weighed: Callable[[Evidence], object] = lambda _: None,
    *,
    restores: bool = True,
    ledger: Ledger | None = None,
) -> Fetched:
    """The checkpoint that ``source`` means; reads headers and the index only.

    Args:
        source: what is wanted.
        settings: all of them.
        deadline: when to give up; never, where there is none.
        when_weighed: told what proves the model where that is known before the headers, which are read then.
        restores: what the local tier has lost is brought back to it; else it is looked for on the next tier, and
            nothing is written.
        ledger: where what is read is written down.

    Raises:
        ModelNotFoundError, FormatError, StoreError, UsageError, HubError: as :func:`fastload.load` says.
        DeadlineError: ``deadline`` is over.
    """
    deadline = deadline or Deadline(None, "")
    request = FetchRequest(source, settings, deadline, when_weighed, restores, ledger or Ledger())
    # A Ctrl-C must end it also where the mount hangs under an index or a header.
    fetched = deadline.apart(lambda: _fetch(request), lambda late: late.close())
    warn_of_unnamed(fetched.checkpoint, fetched.folder)
    return fetched


def _fetch(request: FetchRequest) -> Fetched:
    settings = request.settings
    parsed = parse_model(request.source.model, request.source.revision, settings)
    if isinstance(parsed, str):
        return fetch_path(request, parsed)
    tiers = tiers_of(settings)
    found = search(parsed, tiers)
    hub = hub_of(settings, Patience().within(settings.deadline))
    if found.found is not None or hub is None:
        return _fetch_whole(request, Serving(parsed, require(found)), tiers)
    try:
        return fetch_from_hub(request, hub, lambda: find_offer(parsed, hub, found))
    except ModelNotFoundError:  # nor has the hub what is damaged here
        if found.damaged is None:
            raise
    return _fetch_whole(request, Serving(parsed, found.damaged), tiers)


def _fetch_whole(request: FetchRequest, serving: Serving, tiers: Tiers) -> Fetched:
    """From the copy that serves; from the next tier, where that one cannot give it."""
    try:
        return fetch_copy(request, serving)
    except LostError as exc:
        lost, want = exc.error, exc.want
    try:
        fetched = _fetch_elsewhere(request, serving, tiers)
    except DeadlineError:
        raise
    except FastloadError as exc:
        _log.info("no other tier has %s whole: %s", serving.stored.repo, exc)
        if want is not None and not want.is_denied_by(exc, serving.name.text):
            want.explain()
        raise lost from exc
    if want is not None:
        want.explain()
    passing = Passing()
    passing.over(serving.stored.tier, lost)
    passing.tell(fetched.tier)
    return replace(fetched, passed_over="; ".join(filter(None, (passing.reason, fetched.passed_over))))


def _fetch_elsewhere(request: FetchRequest, serving: Serving, tiers: Tiers) -> Fetched:
    """The same commit, from another tier.

    Raises:
        FastloadError: none has it, or only some of it too.
    """
    stored, settings = serving.stored, request.settings
    others = tiers.without(stored.tier)
    name = Name(serving.name.text, (Candidate(stored.repo, stored.commit),), is_alias=False)
    found = search(name, others)
    hub = hub_of(settings, Patience().within(min(settings.deadline or _BETTER_SOURCE_S, _BETTER_SOURCE_S)))
    if found.found is not None or hub is None:
        fetched = _fetch_whole(request, Serving(serving.name, require(found)), others)
    else:
        fetched = fetch_from_hub(
            request, hub, lambda: replace(find_offer(name, hub, found), candidate=serving.candidate)
        )
    return replace(fetched, commit_learnt=serving.learnt)
