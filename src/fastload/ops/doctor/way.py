"""The way that a load of one model would take: which tier, which reader, which evidence, and why. Writes nothing."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.checkpoint.fetch import fetch
from fastload._fetch.checkpoint.home import check_hub_reader
from fastload._fetch.evidence.weigh import weigh_hub
from fastload._fetch.find.at_path import stored_at
from fastload._fetch.find.hub import hub_of
from fastload._fetch.find.model import Source
from fastload._fetch.find.only_hub import find_offer
from fastload._fetch.find.resolve import parse_model, tiers_of
from fastload._store.hub.tier import Patience
from fastload._store.keep.reports import read_reports
from fastload._store.ref import Name
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._store.tiered import search
from fastload._tier import HUB, LOCAL, PATH, parse_tier
from fastload._verify.evidence_kind import EvidenceKind
from fastload.errors import FastloadError, ModelNotFoundError, escaped
from fastload.ops.doctor.demands import check_demanded, find_reader
from fastload.ops.doctor.finding import FATAL, NOTE, WARNING, Finding
from fastload.ops.doctor.history import PastLoad, judge_history, parse_past

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._store.offer import Offer
    from fastload._store.stored import Stored
    from fastload._tier import Tier
    from fastload.ops.doctor.gpu import Gpu
    from fastload.options import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What a load to the CPU would do."""

    model: str
    tier: str
    tier_reason: str
    path: str
    """The snapshot's folder; of what only the hub has, ``repo@commit``."""
    commit: str | None
    reader: str
    reader_reason: str
    evidence: str
    evidence_reason: str
    past: tuple[PastLoad, ...] = ()
    """The last loads of it, where they are kept."""
    past_reason: str = ""
    """Why none are kept."""


def find_way(model: str, settings: Settings, gpu: Gpu, *, when_weighed: Callable[[Evidence], object]) -> Way:
    """Look for ``model`` as a load would: headers are read, weights are not, and nothing is written.

    Args:
        model: a name or a path.
        settings: those of the load; ``deadline`` is the hub's.
        gpu: what there is of a way to one.
        when_weighed: told what proves the model, as soon as a folder has answered, and before its headers are read.

    Raises:
        FastloadError: what the load would raise.
    """
    parsed = parse_model(model, None, settings)
    if isinstance(parsed, Name):
        found, hub = search(parsed, tiers_of(settings)), hub_of(settings, Patience().within(settings.deadline))
        if found.found is None and hub is not None:
            with hub:
                try:
                    return _find_on_hub(find_offer(parsed, hub, found).offer, model, settings)
                except ModelNotFoundError:  # nor has the hub what is damaged here
                    if found.damaged is None:
                        raise
    with closing(fetch(Source(model), settings, when_weighed=when_weighed, restores=False)) as fetched:
        check_demanded(fetched, settings)
        reader, why = find_reader(fetched, settings, gpu)
        stored = stored_at(fetched.root)  # nothing is at the root of what only the hub has: it is empty
        return Way(
            model=model,
            tier=str(fetched.tier),
            tier_reason=_explain_tier(fetched.tier, settings),
            path=fetched.folder,
            commit=fetched.commit or (None if stored is None else stored.commit),
            reader=reader,
            reader_reason=why,
            evidence=fetched.evidence.kind,
            evidence_reason=_explain(fetched.evidence),
            past=_find_past(stored),
            past_reason="" if stored is None else _explain_none_kept(fetched.tier, stored),
        )


def _find_on_hub(offer: Offer, model: str, settings: Settings) -> Way:
    """By the hub's listing alone: headers are a request for each shard."""
    check_hub_reader(settings.reader)
    evidence = weigh_hub(offer, settings)
    return Way(
        model=model,
        tier=str(offer.tier),
        tier_reason=_explain_tier(offer.tier, settings),
        path=f"{offer.repo}@{offer.commit}",
        commit=offer.commit,
        reader="hub",
        reader_reason="it is on no mount",
        evidence=evidence.kind.value,
        evidence_reason=_explain(evidence),
    )


def _explain_tier(tier: Tier, settings: Settings) -> str:
    if tier == PATH:
        return "it is a path"
    if tier == HUB:
        return f"no folder has it complete, and {settings.hub.endpoint} has"
    return f"the first of {', '.join(settings.tiers)} that has it complete"


def _find_past(stored: Stored | None) -> tuple[PastLoad, ...]:
    if not isinstance(stored, CachedSnapshot):
        return ()
    return parse_past(read_reports(stored.layout, stored.commit))


def _explain_none_kept(tier: Tier, stored: Stored) -> str:
    """Why a load from here leaves no report that the next one could be compared with; empty: it does."""
    if tier != LOCAL or isinstance(stored, PlainFolder):
        return "reports are kept on the local tier alone"
    if not os.access(stored.layout.ours(), os.W_OK):
        return f"{escaped(stored.layout.ours())} cannot be written here"
    return ""


def _explain(evidence: Evidence) -> str:
    if evidence.kind is EvidenceKind.NONE:
        return "nothing is known of the bytes, so they would be loaded unverified"
    if evidence.has_blocks:
        return "each 4 MiB has a digest, and is proven as it is read, in parallel"
    return "a digest of each whole file, taken in its order by one thread a file"


def judge_way(way: Way) -> Iterator[Finding]:
    """What would make it faster, or safer."""
    yield from judge_history(escaped(way.model), way.past)
    if way.evidence != EvidenceKind.NONE and "in its order" not in way.evidence_reason:
        return
    if parse_tier(way.tier) == HUB:
        cure = f"fastload warm {escaped(way.model)}"
    else:
        cure = f"fastload verify {escaped(way.model)} --record"
    yield Finding(
        severity=NOTE,
        what=f"{escaped(way.model)} has no block digests: {way.evidence_reason}",
        why="without evidence a wrong byte is not noticed; with digests of whole files proof is serial, about 1.8 GB/s",
        cure=cure,
    )


def judge_failure(model: str, error: FastloadError) -> Finding:
    """A load that would fail."""
    hint = error.hint or "fastload load shows the same error"
    return Finding(
        severity=FATAL,
        what=f"a load of {escaped(model)} would fail: {error}",
        why=f"{type(error).__name__}, exit code {error.exit_code}",
        cure=hint,
    )


def judge_slow(model: str, patience_s: float) -> Finding:
    """Storage that answers, and takes longer than the doctor waits."""
    return Finding(
        severity=WARNING,
        what=f"the headers of {escaped(model)} could not be read within {patience_s:.1f} s",
        why="what else a load would do here is not known; one that reads hundreds of shards begins as slowly",
        cure=f"fastload inspect {escaped(model)} waits for it",
    )
