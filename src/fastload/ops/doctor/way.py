"""The way that a load of one model would take: which tier, which reader, which evidence, and why. Writes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.at_path import follow, stored_at
from fastload._fetch.evidence import NOTHING, no_better
from fastload._fetch.resolve import parse_model, require, tiers_of
from fastload._fetch.source import find_offer, hub_of, patience_within
from fastload._fetch.weigh import weigh, weigh_hub
from fastload._format.select import by_rule
from fastload._read.choose import choose_reader
from fastload._read.file import identify, open_regular
from fastload._read.reader import PlainFile
from fastload._store.directory import find_files
from fastload._store.keep.reports import read_reports
from fastload._store.tiered import Tiers, search
from fastload.errors import FastloadError, escaped
from fastload.ops.doctor.finding import FATAL, NOTE, Finding
from fastload.ops.doctor.history import PastLoad, judge_history, parse_past

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from fastload._fetch.evidence import Evidence
    from fastload._store.root import Stored
    from fastload.options import Settings

_PATIENCE_S = 4.0


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


def find_way(model: str, settings: Settings, silent: Container[str]) -> Way:
    """Look for ``model`` as a load would, without those tiers that did not answer before.

    Raises:
        FastloadError: what the load would raise.
    """
    parsed = parse_model(model, None, settings)
    if isinstance(parsed, str):
        return _way_of_path(model, parsed, settings)
    tiers = tiers_of(settings)
    heard = Tiers(
        local=tiers.local if tiers.local is not None and tiers.local.label not in silent else None,
        shared=tuple(root for root in tiers.shared if root.label not in silent),
    )
    found = search(parsed, heard)
    hub = hub_of(settings, patience_within(_PATIENCE_S))
    if found.found is None and hub is not None:
        with hub:
            offer = find_offer(parsed, hub, found).offer
            evidence = weigh_hub(offer, settings)
        return Way(
            model=model,
            tier="hub",
            tier_reason=f"no folder has it complete, and {settings.hub.endpoint} has",
            path=f"{offer.repo}@{offer.commit}",
            commit=offer.commit,
            reader="hub",
            reader_reason="it is on no mount",
            evidence=evidence.kind,
            evidence_reason=_explain(evidence),
        )
    stored = require(found)
    reason = f"the first of {', '.join(settings.tiers)} that has it complete, by its {stored.evidence}"
    return _way_of_stored(model, stored, reason, settings)


def _way_of_path(model: str, path: str, settings: Settings) -> Way:
    path = follow(path)
    stored = stored_at(path)
    if stored is not None:
        return _way_of_stored(model, stored, "it is a path", settings)
    reader, why = _describe_readers(path, settings)
    return Way(
        model=model,
        tier="path",
        tier_reason="it is a path",
        path=path,
        commit=None,
        reader=reader,
        reader_reason=why,
        evidence=NOTHING.kind,
        evidence_reason=_explain(NOTHING),
    )


def _way_of_stored(model: str, stored: Stored, tier_reason: str, settings: Settings) -> Way:
    evidence = weigh(stored, no_better, settings)
    reader, why = _describe_readers(stored.folder, settings)
    return Way(
        model=model,
        tier=stored.tier,
        tier_reason=tier_reason,
        path=stored.folder,
        commit=stored.commit,
        reader=reader,
        reader_reason=why,
        evidence=evidence.kind,
        evidence_reason=_explain(evidence),
        past=_find_past(stored),
        past_reason=_explain_none_kept(stored),
    )


def _find_past(stored: Stored) -> tuple[PastLoad, ...]:
    if stored.layout is None or stored.commit is None:
        return ()
    return parse_past(read_reports(stored.layout, stored.commit))


def _explain_none_kept(stored: Stored) -> str:
    """Why a load from here leaves no report that the next one could be compared with; empty: it does."""
    if stored.tier != "local" or stored.layout is None:
        return "reports are kept on the local tier alone"
    if not os.access(stored.layout.ours(), os.W_OK):
        return f"{escaped(stored.layout.ours())} cannot be written here"
    return ""


def _describe_readers(path: str, settings: Settings) -> tuple[str, str]:
    """The readers of the shards, and the first one's reason."""
    reasons: dict[str, str] = {}
    for _, shard in find_files(path, subfolder=None, select=by_rule()).shards:
        choice = choose_reader(_plain_file(shard), settings.reader)
        reasons.setdefault(choice.name, choice.reason)
    return "+".join(sorted(reasons)), "; ".join(dict.fromkeys(reasons.values()))


def _plain_file(path: str) -> PlainFile:
    descriptor = open_regular(path)
    try:
        return PlainFile(path, identify(os.fstat(descriptor)))
    finally:
        os.close(descriptor)


def _explain(evidence: Evidence) -> str:
    if evidence.kind == "none":
        return "nothing is known of the bytes, so they would be loaded unverified"
    if evidence.has_blocks:
        return "each 4 MiB has a digest, and is proven as it is read, in parallel"
    return "a digest of each whole file, taken in its order by one thread a file"


def judge_way(way: Way) -> Iterator[Finding]:
    """What would make it faster, or safer."""
    yield from judge_history(escaped(way.model), way.past)
    if way.evidence != "none" and "in its order" not in way.evidence_reason:
        return
    if way.tier == "hub":
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
    hint = str(getattr(error, "hint", "")) or "fastload load shows the same error"
    return Finding(
        severity=FATAL,
        what=f"a load of {escaped(model)} would fail: {error}",
        why=f"{type(error).__name__}, exit code {error.exit_code}",
        cure=hint,
    )
