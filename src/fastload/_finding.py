"""One thing that was found wrong with a file: what verifying a model finds, and what its errors carry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    path: str
    """In the snapshot."""
    block: int | None
    """None: the file as a whole."""
    offset: int
    found: str
    expected: str
    repaired: bool
