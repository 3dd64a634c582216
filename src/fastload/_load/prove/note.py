"""One sentence on what proved a load: what it cost and what makes it cheaper, or why nothing did."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._load.prove.proving import OFF
from fastload._read.ledger import Purpose
from fastload._verify.evidence_kind import EvidenceKind
from fastload.errors import escaped

if TYPE_CHECKING:
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._load.prove.proving import Proving


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOutcome:
    """How a load ended."""

    is_finished: bool
    """False where it was left early, or failed."""
    doubt: str = ""
    """Why some of what another rank of a group sent is not proven."""
    has_manifest: bool
    """True if the next load finds one."""
    hash_s: float
    """Spent on digests since the load began to read, summed over threads."""


def find_evidence_kind(proving: Proving, outcome: LoadOutcome) -> EvidenceKind:
    """What proved the bytes that were handed out; a digest of a whole file proves nothing before its end."""
    is_doubtful = outcome.doubt or (proving.is_serial and not outcome.is_finished)
    return EvidenceKind.NONE if is_doubtful else proving.evidence


def explain_evidence(proving: Proving, fetched: Fetched, outcome: LoadOutcome) -> str:
    """The sentence."""
    if find_evidence_kind(proving, outcome) is EvidenceKind.NONE:
        reason = (
            proving.reason
            or outcome.doubt
            or ("left before the end of a file" if fetched.checkpoint.shards else "no shard")
        )
        return f"unverified: {reason}{_cure(proving, fetched)}"
    first_s = fetched.tally.ahead_hash_s
    cost = f"{fetched.tally.verified:,} blocks, {outcome.hash_s + first_s:.2f} s of hashing"
    if first_s:
        return f"{cost}, {first_s:.2f} s of it in the order of each file before the stream began"
    if not proving.is_serial:
        return f"{cost}, in parallel"
    if outcome.has_manifest:
        read_bytes = fetched.tally.ledger.bytes_for(Purpose.RECORD)
        more = f" ({read_bytes:,} bytes were read for it)" if read_bytes else ""
        return f"{cost}, in the order of each file; a manifest was left, so the next load hashes in parallel{more}"
    return f"{cost}, in the order of each file{_cure(proving, fetched)}"


def _cure(proving: Proving, fetched: Fetched) -> str:
    """What makes the next load prove blocks; nothing where it was not asked to prove any."""
    if proving.reason == OFF:
        return ""
    # Of several mounts the name leads to the first, which may have been passed over.
    name = escaped(shlex.quote(fetched.root if fetched.tier.mount else fetched.name))
    if not fetched.evidence.may_have_blocks:
        return "; to hash in parallel: sign whole files by sha256, as model_signing sign does unless told otherwise"
    apart = " --manifests DIR --signature-key KEY" if fetched.evidence.kind is EvidenceKind.SIGNATURE else ""
    return f"; to hash in parallel: {fetched.home.record_command(name, apart)}"
