"""``shard=``: which part of the model this rank keeps, by placements of DTensor or by a predicate.

A placement says how a tensor is dealt to the ranks of a mesh. Where no mesh comes with it, that is the group itself.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from fastload._group.process_group import Position
from fastload._place.tensors import torch_layout
from fastload._plan.cut import Cut, cut_evenly, has_whole_rows, narrow
from fastload.errors import UnsupportedError, UsageError, quoted

if TYPE_CHECKING:
    from fastload._format.header import TensorInfo

Shard = Mapping[str, Any] | Callable[[str], bool]
"""Placements by name or glob, or a predicate of the name."""
_HINT = "Give {name or glob: Shard(0) | Replicate() | a DTensor}, or a predicate of the name"


@dataclass(frozen=True, slots=True)
class Parts:
    """What is kept of each tensor."""

    keeps: Callable[[str], bool] = lambda _: True
    cuts: Mapping[str, Cut] = field(default_factory=dict)

    def narrow(self, info: TensorInfo) -> TensorInfo:
        """The rows that are kept, which are all that is read."""
        cut = self.cuts.get(info.name)
        return info if cut is None else narrow(info, cut.rows)

    def shape(self, info: TensorInfo) -> TensorInfo:
        """``info``, which was narrowed, in the shape that is kept in the end."""
        cut = self.cuts.get(info.name)
        return info if cut is None else info._replace(shape=cut.shape)

    def further(self, infos: Sequence[TensorInfo]) -> dict[str, tuple[slice, ...]]:
        """How those of ``infos``, narrowed, are cut that lose more than rows."""
        cuts = ((info.name, self.cuts.get(info.name), torch_layout(info)[1]) for info in infos)
        found = ((name, cut.within_rows(shape)) for name, cut, shape in cuts if cut is not None)
        return {name: slices for name, slices in found if slices is not None}


EVERYTHING = Parts()


def choose_parts(shard: Shard | None, infos: Sequence[TensorInfo], position: Position | None) -> Parts:
    """What ``shard=`` means for the tensors ``infos``.

    Args:
        shard: what the caller gave; None means everything.
        infos: the wanted tensors, whole.
        position: this rank's, for placements without a mesh; None: it has none.

    Raises:
        UsageError: it cannot be meant.
        UnsupportedError: a placement that cannot be read, or a tensor that cannot be divided so.
    """
    if shard is None:
        return EVERYTHING
    if callable(shard):
        return Parts(keeps=shard)
    cuts: dict[str, Cut] = {}
    unmatched = {key for key, value in shard.items() if not hasattr(value, "device_mesh")}
    for info in infos:
        key = info.name if info.name in shard else next((k for k in shard if fnmatch.fnmatchcase(info.name, k)), None)
        if key is None:
            continue
        unmatched.discard(key)
        cut = _cut(info, _deal(shard[key], position, key))
        if cut is not None:
            cuts[info.name] = cut
    if unmatched:
        raise UsageError(f"shard= {quoted(min(unmatched))} matches none of {len(infos)} tensors", _HINT)
    return Parts(cuts=cuts)


def merge_shard(shard: object, placed: Mapping[str, Any]) -> Shard | None:
    """``shard=``, and DTensors that are there already, which know better.

    Raises:
        UsageError: it is neither placements nor a predicate.
    """
    if shard is None or isinstance(shard, Mapping):
        merged = {**placed, **{key: value for key, value in (shard or {}).items() if key not in placed}}
        return merged or None
    if not callable(shard):
        raise UsageError(f"shard= got {type(shard).__name__}", _HINT)
    if placed:
        raise UsageError("shard= got a predicate for a module with DTensors", "They say themselves what is here")
    return shard


class _Dealt(NamedTuple):
    placement: Any
    position: Position


def _deal(value: Any, position: Position | None, key: str) -> list[_Dealt]:
    """The placements that ``value`` is, each with this rank's place in the dimension of the mesh that it is for."""
    if hasattr(value, "placements") and hasattr(value, "device_mesh"):
        mesh, here = value.device_mesh, value.device_mesh.get_coordinate()
        if here is None:
            raise UsageError(f"shard= {quoted(key)}: this rank is not in its mesh", "Give it on the mesh's ranks only")
        return [_Dealt(p, Position(here[dim], mesh.size(dim))) for dim, p in enumerate(value.placements)]
    if position is None:
        hint = "Give group=, call torch.distributed.init_process_group, or give DTensors, which know their mesh"
        raise UsageError("shard= got placements, but this process is in no group", hint)
    placements = list(value) if isinstance(value, Sequence) else [value]
    if len(placements) != 1:
        what = f"shard= {quoted(key)}: {len(placements)} placements for a group, which has one dimension"
        raise UsageError(what, "Give DTensors, which know their mesh")
    return [_Dealt(placements[0], position)]


def _cut(info: TensorInfo, dealt: Sequence[_Dealt]) -> Cut | None:
    """What is kept of ``info``; None: all of it."""
    shape = torch_layout(info)[1]
    bounds = [(0, size) for size in shape]
    for placement, position in dealt:
        dim = _find_dim(placement, info, len(shape))
        if dim is None:
            continue
        begin, end = bounds[dim]
        first, last = cut_evenly(end - begin, position.size, position.rank)
        bounds[dim] = (begin + first, begin + last)
    if all(bound == (0, size) for bound, size in zip(bounds, shape, strict=True)):
        return None
    _check_divisible(info, shape, bounds)
    return Cut(tuple(bounds))


def _find_dim(placement: Any, info: TensorInfo, rank: int) -> int | None:
    """The dimension that is dealt out; None: every rank has all."""
    from torch.distributed.tensor import Replicate, Shard  # noqa: PLC0415 - a second of import, for those who shard

    if isinstance(placement, Replicate):
        return None
    if type(placement) is not Shard:
        what = f"shard= of {quoted(info.name)} got {placement!r}"
        raise UnsupportedError(what, "Shard(dim) and Replicate() can be read; make others from these")
    dim = int(placement.dim)
    if not -rank <= dim < rank:
        raise UsageError(f"shard= of {quoted(info.name)}: it has no dimension {dim}", "Replicate() it")
    return dim % rank


def _check_divisible(info: TensorInfo, shape: tuple[int, ...], bounds: Sequence[tuple[int, int]]) -> None:
    """Elements that are less than a byte may be packed across what would be cut."""
    is_packed = bool(info.dtype.bits % 8)
    last_is_cut = bounds[-1] != (0, shape[-1])
    if is_packed and (len(shape) != len(info.shape) or last_is_cut or not has_whole_rows(info)):
        what = f"{quoted(info.name)}, packed {info.dtype.name}, cannot be cut so"
        raise UnsupportedError(what, "Shard it in another dimension than the last, or Replicate() it")
