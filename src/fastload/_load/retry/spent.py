"""What a load had read before it began once more: it is counted too, as it was read by the same process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._fetch.verify.verify import Verification
    from fastload.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """On a try that failed, and on looking for what was wrong."""

    own_bytes: int = 0
    """From the tier that served."""
    bytes_by_tier: Mapping[str, int] = field(default_factory=dict)
    blocks_reread: int = 0
    blocks_repaired: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            own_bytes=self.own_bytes + other.own_bytes,
            bytes_by_tier=Counter(self.bytes_by_tier) + Counter(other.bytes_by_tier),
            blocks_reread=self.blocks_reread + other.blocks_reread,
            blocks_repaired=self.blocks_repaired + other.blocks_repaired,
        )

    def add_to(self, report: Report) -> Report:
        """``report``, of the try that came to its end, with this too."""
        both = _spent_by(report.bytes_read, report) + self
        return replace(
            report,
            bytes_read=both.own_bytes,
            bytes_by_tier={tier: both.bytes_by_tier[tier] for tier in {**report.bytes_by_tier, **both.bytes_by_tier}},
            blocks_reread=both.blocks_reread,
            blocks_repaired=both.blocks_repaired,
        )


def spent_on_try(report: Report) -> Spent:
    """On a load that failed."""
    return _spent_by(report.bytes_read, report)


def spent_on_look(found: Verification) -> Spent:
    """On a look at what is stored, and mending it."""
    return _spent_by(found.bytes_by_tier.get(found.tier, 0), found)


def _spent_by(own_bytes: int, work: Report | Verification) -> Spent:
    return Spent(
        own_bytes=own_bytes,
        bytes_by_tier=work.bytes_by_tier,
        blocks_reread=work.blocks_reread,
        blocks_repaired=work.blocks_repaired,
    )
