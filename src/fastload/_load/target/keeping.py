"""What becomes of the tensors, and the memory that they take meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fastload._place.tensors import is_castable, torch_layout
from fastload._plan.ranges import count
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from fastload._format.header import TensorInfo
    from fastload._plan.plan import Plan
    from fastload._plan.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Keeping:
    """What becomes of the tensors."""

    keeps_all: bool
    """True: they all stay until the end; False: the caller takes one after another."""
    window_bytes: int
    """How far reading runs ahead where not all bytes are kept as they were read."""
    cast: torch.dtype | None
    cuts: Mapping[str, tuple[Ranges, ...]] = field(default_factory=dict)
    """What stays, by name, in each dimension of tensors that are read as a whole."""
    host_above_bytes: int | None = None
    """What of a device's tensors stays in host memory: those that are larger; None: none."""

    def stays_on_host(self, nbytes: int) -> bool:
        """True for memory of so many bytes that shall not be the device's."""
        return self.host_above_bytes is not None and nbytes > self.host_above_bytes

    @property
    def reads_ahead_bytes(self) -> int | None:
        """The pipeline's window. What is cast or cut gives its stored bytes back, which need not all be there."""
        return None if self.keeps_all and self.cast is None and not self.cuts else self.window_bytes

    def reading_less_ahead(self) -> Keeping | None:
        """With half of the window, or none that would be less than a block; None where there is nothing to give up."""
        if not self.reads_ahead_bytes:
            return None
        half = self.window_bytes // 2
        return replace(self, window_bytes=half if half >= BLOCK_BYTES else 0)

    def peak_bytes(self, plan: Plan) -> int:
        """The most memory the tensors take at any time."""
        arenas = {n: nbytes for n, nbytes in enumerate(plan.arena_bytes) if not self.stays_on_host(nbytes)}
        stored = sum(arenas.values())
        if self.reads_ahead_bytes is not None:
            passing = self.reads_ahead_bytes + 2 * max(arenas.values(), default=0)
            stored = min(stored, passing + sum(arenas[n] for n in self._find_kept(plan) & arenas.keys()))
        return stored + self.made_bytes(plan)

    def _find_kept(self, plan: Plan) -> set[int]:
        """The arenas in which a tensor stays as it was read."""
        return {p.arena for p in plan.placements if not self._is_made_anew(p.info)} if self.keeps_all else set()

    def made_bytes(self, plan: Plan) -> int:
        """Memory of the tensors that are made by casting and cutting, as far as they exist at once."""
        infos = [placement.info for placement in plan.placements if self._is_made_anew(placement.info)]
        made = [self._made_bytes(info) for info in infos]
        if not self.keeps_all:
            return 2 * max(made, default=0) + self._cast_to_cut_bytes(infos)
        return sum(made) + self._cast_to_cut_bytes(infos)

    def copied_bytes(self, plan: Plan, *, copies_all: bool) -> int:
        """Memory of the copies of what is mapped that exist at once; what is made anew of a copy lets go of it."""
        copied = [p for p in plan.placements if copies_all or not p.is_aligned or self._may_cast(p.info)]
        if not self.keeps_all:
            return 2 * max((p.info.nbytes for p in copied), default=0)
        passing = max((p.info.nbytes for p in copied if self._is_made_anew(p.info)), default=0)
        return passing + sum(p.info.nbytes for p in copied if not self._is_made_anew(p.info))

    def _is_made_anew(self, info: TensorInfo) -> bool:
        return self._casts(info) or info.name in self.cuts

    def _casts(self, info: TensorInfo) -> bool:
        """False for what has that dtype already: it stays as it was read."""
        return self._may_cast(info) and torch_layout(info)[0] != self.cast

    def _may_cast(self, info: TensorInfo) -> bool:
        return self.cast is not None and is_castable(info)

    def _made_bytes(self, info: TensorInfo) -> int:
        """Of what is made of it."""
        if info.name not in self.cuts:
            return self._cast_bytes(info)
        dtype = self.cast if self.cast is not None and self._casts(info) else torch_layout(info)[0]
        return math.prod(map(count, self.cuts[info.name])) * dtype.itemsize

    def _cast_bytes(self, info: TensorInfo) -> int:
        """Of all of it, cast."""
        return 0 if self.cast is None else info.nbytes * self.cast.itemsize * 8 // info.dtype.bits

    def _cast_to_cut_bytes(self, infos: list[TensorInfo]) -> int:
        """Of the largest tensor that is cast as a whole before a part of it is cut out."""
        return max(
            (self._cast_bytes(info) for info in infos if info.name in self.cuts and self._casts(info)), default=0
        )
