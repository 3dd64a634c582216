"""What one load did, as frozen facts: a program compares them, a person reads the bottleneck's sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

STAGES = ("resolve", "plan", "stream", "publish", "finish")
"""Wall phases; they follow one another and their seconds add up to the report's."""

ACTIVITIES = ("read", "hash", "copy", "write", "wait")
"""What threads were busy with; summed over threads, so they overlap and may exceed the wall."""
EXCHANGE = "exchange"
"""One more activity in a group: sending to other ranks, and waiting for what they send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankReport:
    """What one rank did in a load that a group carried out together."""

    rank: int
    node: int
    """Which machine it is on; equal numbers are one machine."""
    bytes_read: int
    """As in its own report: its share, what it proved of each file for the header, and what it read to mend or keep."""
    bytes_sent: int
    """To other ranks."""
    bytes_received: int
    share_s: float
    """After so many seconds of streaming it had read all of its share."""
    seconds: float
    """Until it had all that it wanted, or left."""
    bottleneck: str
    left_early: bool = False
    """True if its stream was closed before the end; what it then read and sent for the others is counted as well, as
    far as its process lived to say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
    """What a group did together."""

    rank: int
    """Whose report this is."""
    size: int
    ranks: tuple[RankReport, ...]
    """All of them on rank 0, or the first one whose stream was not closed early; elsewhere its own."""
    slowest: int
    """The rank that had its share last; those that left early are counted where all are in ``ranks``."""
    reason: str
    """When, and why so late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The facts of one load."""

    bytes: int
    """Delivered: the wanted tensors, as they were handed out."""
    bytes_read: int
    """Read by this process from the tier that served: whole blocks, so a little more than ``bytes``; with the blocks of
    headers, what was read again to mend it, what only the copy or a manifest needed, and what was tried before, there
    or elsewhere."""
    bytes_by_tier: dict[str, int]
    """``bytes_read``, under the tiers that it was read of; under others what was read there to mend it, or since some
    of it was already where it was brought to."""
    tensors: int
    seconds: float
    stages: dict[str, float]
    """Seconds by stage."""
    busy_s: dict[str, float]
    """Seconds by activity."""
    bound_by: str
    """What the load waited for most: ``read``, ``copy``, ``hash``, ``write``, ``exchange`` or ``caller``; or a
    stage that took longer than the stream."""
    bottleneck: str
    """That, as a sentence with its number."""
    tier: str
    commit: str | None
    commit_learnt: str | None
    """Where the commit was learnt; None where there is none, as for a path."""
    reader: str
    reader_reason: str
    evidence: str
    """What proved the bytes: signature, manifest, manifest (recorded), sha256, git-sha1, etag, listing or none."""
    evidence_reason: str = ""
    """What that cost and what makes it cheaper; or why there is none."""
    hashed_on: str
    """What took the digests: ``cpu``, a device such as ``cuda:0``, ``cuda:0+cpu``, or ``none``."""
    hashed_reason: str
    """Why that."""
    blocks_verified: int
    blocks_reread: int
    """Found wrong, and asked of the same storage once more, past the page cache; each block counts once."""
    blocks_repaired: int
    """Had from another tier, or from the blob that a lost link leads to again; each block counts once."""
    peak_staging_bytes: int
    device: str
    group: GroupReport | None = None
    """None where the load was not carried out together, or left early."""

    @property
    def bytes_per_s(self) -> float:
        """Delivered bytes by all seconds."""
        return self.bytes / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types, with the number of their schema."""
        return {"schema": 1, **asdict(self)}
