"""Which tensors are wanted of the checkpoint that was found, and which bytes of it that means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from fastload._plan.ranges import unite

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from fastload._budget import Headroom
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._format.header import TensorInfo
    from fastload._load.request.shard import Parts
    from fastload._plan.ranges import Range, Ranges, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The checkpoint that was asked for, and what is wanted of it."""

    fetched: Fetched
    wanted: Callable[[str], bool]
    infos: Sequence[TensorInfo]
    """The wanted tensors, in file order; of those that are sharded, the rows that are kept."""
    parts: Parts
    headroom: Headroom
    """What each rank here may take of the machine's memory, as it was when all was found; who allocates looks again."""

    def only(self, names: Container[str]) -> Self:
        """Without the tensors that are not among ``names``."""
        return self._narrowed(lambda name: name in names and self.wanted(name), self.parts)

    def kept_by(self, parts: Parts) -> Self:
        """Only what ``parts`` keeps of it."""
        return self._narrowed(lambda name: self.wanted(name) and parts.keeps(name), parts)

    def _narrowed(self, wanted: Callable[[str], bool], parts: Parts) -> Self:
        return replace(self, wanted=wanted, parts=parts, infos=list_wanted(self.fetched, wanted, parts))

    @property
    def shaped(self) -> list[TensorInfo]:
        """The wanted tensors in the shapes in which they are handed out."""
        return [self.parts.shape(info) for info in self.infos]

    @property
    def cuts(self) -> dict[str, tuple[Ranges, ...]]:
        """What stays, by name, in each dimension of tensors of which more is brought."""
        return self.parts.further(self.infos)

    @property
    def spread(self) -> Spread:
        """The bytes of the wanted tensors."""
        ranges: list[list[Range]] = [[] for _ in self.fetched.checkpoint.shards]
        for shard, info in self.fetched.checkpoint.tensors():
            if self.wanted(info.name):
                ranges[shard] += self.parts.ranges(info)
        return tuple(map(unite, ranges))


def list_wanted(fetched: Fetched, wanted: Callable[[str], bool], parts: Parts) -> list[TensorInfo]:
    """The wanted tensors in file order, as far as ``parts`` keeps them."""
    return [parts.narrow(info) for _, info in fetched.checkpoint.tensors() if wanted(info.name)]
