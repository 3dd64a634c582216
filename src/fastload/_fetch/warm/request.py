"""What ``warm`` is asked for, and what it answers where it only plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastload._store.wanted import Wish

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from fastload._progress import Callback


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmRequest:
    """What shall be brought where."""

    model: str | os.PathLike[str]
    revision: str | None = None
    to: str = "local"
    """``local``, ``shared`` (the first one), or the root of a cache."""
    wish: Wish = field(default_factory=Wish)
    plain: str | None = None
    """A folder that shall hold real files instead."""
    link: str | None = None
    """A path that shall be a link to the snapshot."""
    slots: int | None = None
    """How many may copy from a shared tier at once."""
    jitter_s: float = 0.0
    list_path: str | None = None
    """A resident warmer's list, which asks: what comes new to the local tier is its to take away again."""
    progress: bool | Callback | None = None
    tell: Callable[[str], None] = lambda _: None
    """Is told in a sentence what the work waits for."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What ``warm`` would do."""

    repo: str
    commit: str | None
    tier: str
    """Where the bytes are."""
    to: str
    files: tuple[tuple[str, int], ...]
    """Path and size of what would be brought; empty: it is there."""

    @property
    def nbytes(self) -> int:
        """Of all files."""
        return sum(size for _, size in self.files)
