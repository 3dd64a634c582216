"""What a user wants checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, slots=True)
class Examination:
    """What to check, and what to do about it."""

    model: str | os.PathLike[str]
    revision: str | None
    repairs: bool
    records: bool
    include: tuple[str, ...]
    """Globs of paths; all of them where there is none."""
    progress: bool | None = False
    """Whether a person is told how far it is; as for :func:`fastload.load`."""
    paces_local: bool = True
    """False: ``max_rate`` holds back what is read from lower tiers only, as in a load that waits for it."""
