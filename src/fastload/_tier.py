"""Where a model was found. Here alone a tier becomes a text, as reports, JSON, logs and manifests have it.

Three things share these words. The setting ``tiers`` has kinds: which of them may be asked. A copy or an offer has a
:class:`Tier`: the one that it is on. And the ``source`` of a manifest is a text that stays on the disk: a tier's, or
one of two that say the manifest was made where the files lay (``MADE_HERE``, ``RECORDED``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TierKind(StrEnum):
    """What a user may allow, in the order in which it is asked, and what no setting speaks of."""

    LOCAL = "local"
    SHARED = "shared"
    HUB = "hub"
    PATH = "path"
    """Where a user said, be it in a tier's folder or not."""
    RANK = "rank"
    """With another rank of a group, which reads it and sends the bytes."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier: as a str it is ``local``, ``shared:<root>``, ``hub``, ``path`` or ``rank <number>``."""

    kind: TierKind
    place: str = ""
    """The root of a shared one, the number of a rank."""

    def __str__(self) -> str:
        if self.kind is TierKind.RANK:
            return f"rank {self.place}"
        return f"{self.kind}:{self.place}" if self.place else self.kind.value

    @property
    def mount(self) -> str | None:
        """The root of a shared one."""
        return self.place if self.kind is TierKind.SHARED else None

    @property
    def is_lower(self) -> bool:
        """True below the local one: what comes from there is paced, and may be kept on the local tier."""
        return self.kind not in {TierKind.LOCAL, TierKind.PATH}


LOCAL = Tier(TierKind.LOCAL)
"""The only one in which a load writes."""
HUB = Tier(TierKind.HUB)
PATH = Tier(TierKind.PATH)


def shared_tier(root: str) -> Tier:
    """The mount at ``root``."""
    return Tier(TierKind.SHARED, root)


def parse_tier(text: str) -> Tier:
    """The tier that is called so in what a caller is given, such as a :class:`~fastload.Snapshot`."""
    kind, _, place = text.partition(" " if text.startswith("rank ") else ":")
    return Tier(TierKind(kind), place)
