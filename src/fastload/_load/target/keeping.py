"""What becomes of the tensors, and the memory that they take meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._place.tensors import is_castable

if TYPE_CHECKING:
    import torch

    from fastload._plan.layout import Placement
    from fastload._plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Keeping:
    """What becomes of the tensors."""

    keeps_all: bool
    """True: they all stay until the end; False: the caller takes one after another."""
    window_bytes: int
    """How far reading runs ahead where not all bytes are kept as they were read."""
    cast: torch.dtype | None
    is_cut: bool = False
    """True: of some tensors that are read as a whole, only a part stays."""
    host_above_bytes: int | None = None
    """What of a device's tensors stays in host memory: those that are larger; None: none."""

    def stays_on_host(self, nbytes: int) -> bool:
        """True for memory of so many bytes that shall not be the device's."""
        return self.host_above_bytes is not None and nbytes > self.host_above_bytes

    @property
    def reads_ahead_bytes(self) -> int | None:
        """The pipeline's window. What is cast or cut gives its stored bytes back, which need not all be there."""
        return None if self.keeps_all and self.cast is None and not self.is_cut else self.window_bytes

    def peak_bytes(self, plan: Plan) -> int:
        """The most memory the tensors take at any time."""
        arenas = [nbytes for nbytes in plan.arena_bytes if not self.stays_on_host(nbytes)]
        stored = sum(arenas)
        if self.reads_ahead_bytes is not None:
            stored = min(stored, self.reads_ahead_bytes + 2 * max(arenas, default=0))
        return stored + self.cast_bytes(plan)

    def cast_bytes(self, plan: Plan) -> int:
        """Memory of the cast tensors that exist at once."""
        if self.cast is None:
            return 0
        width = self.cast.itemsize * 8
        sizes = [p.info.nbytes * width // p.info.dtype.bits for p in plan.placements if is_castable(p.info)]
        return sum(sizes) if self.keeps_all else 2 * max(sizes, default=0)

    def copied_bytes(self, plan: Plan, *, copies_all: bool) -> int:
        """Memory of the copies of what is mapped that exist at once; a cast lets go of its copy."""
        if copies_all or not self.keeps_all:
            copied = [p for p in plan.placements if copies_all or self._casts(p) or not p.is_aligned]
            return 2 * max((p.info.nbytes for p in copied), default=0)
        passing = max((p.info.nbytes for p in plan.placements if self._casts(p)), default=0)
        return passing + sum(p.info.nbytes for p in plan.placements if not p.is_aligned and not self._casts(p))

    def _casts(self, placement: Placement) -> bool:
        return self.cast is not None and is_castable(placement.info)
