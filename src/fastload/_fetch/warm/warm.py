"""``warm``: bring a model up to a tier, verified, once, however many ask for it at the same time.

What was asked for is looked at first, then which snapshot it means, and then come the steps that are the same for any
target: :mod:`fastload._fetch.warm.warming`.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._clock import Clock
from fastload._fetch.deadline import Deadline
from fastload._fetch.evidence.keyed import check_key
from fastload._fetch.evidence.weigh import manifests_of
from fastload._fetch.find.given import meant_by_path
from fastload._fetch.find.hub import hub_of
from fastload._fetch.find.resolve import parse_model, tiers_of
from fastload._fetch.warm.cache_target import CacheTarget
from fastload._fetch.warm.plain_target import PlainTarget
from fastload._fetch.warm.root import choose_root
from fastload._fetch.warm.sources import Sources
from fastload._fetch.warm.turns import Turns
from fastload._fetch.warm.warming import Warming
from fastload._store.admit.link import check_link
from fastload._store.hub.tier import Patience
from fastload._store.ref import Name, name_of
from fastload.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._fetch.find.meant import Meant
    from fastload._fetch.find.resolve import Snapshot
    from fastload._fetch.warm.request import Planned, WarmRequest
    from fastload._fetch.warm.target import Target
    from fastload._store.hub.tier import HubTier
    from fastload.options import Settings

_HALF = "The hub gets half of the deadline, {:g} s, so that what is there can serve: give it longer"
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
            return _prepare(request, settings, deadline.check, hub).run()

    return deadline.within(bring_up)


def plan_warm(request: WarmRequest, settings: Settings) -> Planned:
    """What :func:`warm` would do; writes nothing."""
    deadline = Deadline(settings.deadline, f"planning to warm {name_of(request.model)}")

    def plan() -> Planned:
        with _hub(settings) as hub:
            return _prepare(request, settings, deadline.check, hub).plan()

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
            exc.add_hint(_HALF.format(longest_s))
        raise
    finally:
        if hub is not None:
            hub.close()


def _prepare(request: WarmRequest, settings: Settings, check: Callable[[], None], hub: HubTier | None) -> Warming:
    """All that is known before anything is brought. ``check`` raises when it is time to give up."""
    target = _choose_target(request, settings)
    check_key(settings, request.wish)
    if request.link is not None:
        check_link(request.link, target.root.path)
    clock = Clock()  # a report counts how long it took to learn what is meant
    meant = replace(_find(request, settings, target, hub), manifests=manifests_of(settings))
    return Warming(
        request=request,
        settings=settings,
        sources=Sources(meant, target, request.wish, settings.signature_key),
        turns=Turns(request, check),
        check=check,
        clock=clock,
    )


def _choose_target(request: WarmRequest, settings: Settings) -> Target:
    root = choose_root(request, settings)
    if request.plain is not None:
        return PlainTarget(request.plain, root, request.wish)
    return CacheTarget(root, request.wish)


def _find(request: WarmRequest, settings: Settings, target: Target, hub: HubTier | None) -> Meant:
    parsed = parse_model(request.model, request.revision, settings)
    if not isinstance(parsed, Name):
        return meant_by_path(parsed)
    return target.find(parsed, tiers_of(settings), hub)
