"""The files that all contestants load, and how."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from glob import glob
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Files:
    """Shards of one folder."""

    folder: str
    paths: tuple[str, ...]
    is_part: bool = False
    """True if the folder has more."""

    @property
    def nbytes(self) -> int:
        """Their sizes, headers included."""
        return sum(map(os.path.getsize, self.paths))

    def capped(self, max_bytes: int) -> Files:
        """The first of them, up to so many bytes; one at least."""
        kept: list[str] = []
        left = max_bytes
        for path in self.paths:
            left -= os.path.getsize(path)
            if left < 0 and kept:
                break
            kept.append(path)
        return Files(self.folder, tuple(kept), is_part=self.is_part or len(kept) < len(self.paths))


def list_files(folder: str) -> Files:
    """All shards of a folder that holds nothing else."""
    return Files(folder, tuple(sorted(glob(os.path.join(folder, "*.safetensors")))))


@dataclass(frozen=True, slots=True)
class Trial:
    """What a contestant is given."""

    files: Files
    device: str = "cpu"
    max_rate: int | None = None
    """Bytes a second, for those who can be held to it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """fastload's settings, by name."""
