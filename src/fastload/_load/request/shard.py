"""``shard=``: which part of the model this rank keeps, by placements of DTensor or by a predicate.

A placement says how a tensor is dealt to the ranks of a mesh. Where no mesh comes with it, that is the group itself.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from fastload._group.process_group import Position
from fastload._load.request.globs import is_glob
from fastload._place.tensors import torch_layout
from fastload._plan.cut import Cut, Split, deal, has_whole_rows, innermost_first, narrow
from fastload._plan.ranges import unite
from fastload.errors import UnsupportedError, UsageError, quoted

if TYPE_CHECKING:
    from fastload._format.header import TensorInfo
    from fastload._plan.ranges import Ranges

Shard = Mapping[str, Any] | Callable[[str], bool]
"""Placements by name or glob, or a predicate of the name."""
_HINT = "Give {name or glob: Shard(0) | Replicate() | a DTensor}, or a predicate of the name"
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Parts:
    """What is kept of each tensor."""

    keeps: Callable[[str], bool] = lambda _: True
    cuts: Mapping[str, Cut] = field(default_factory=dict)

    def narrow(self, info: TensorInfo) -> TensorInfo:
        """From the first to the last row that is kept: what there must be room for."""
        cut = self.cuts.get(info.name)
        return info if cut is None else narrow(info, cut.rows)

    def ranges(self, info: TensorInfo) -> Ranges:
        """The bytes of the rows that are kept, which are all that is read."""
        cut = self.cuts.get(info.name)
        parts = [info] if cut is None else [narrow(info, rows) for rows in cut.kept[0]]
        return unite((part.begin, part.end) for part in parts)

    def shape(self, info: TensorInfo) -> TensorInfo:
        """``info``, which was narrowed, in the shape that is kept in the end."""
        cut = self.cuts.get(info.name)
        if cut is None:
            return info
        # A cut counts as torch does, two elements of F4 as one; along the last dimension it divides none of these.
        return info._replace(shape=(*cut.shape[:-1], info.shape[-1]) if info.dtype.bits % 8 else cut.shape)

    def further(self, infos: Sequence[TensorInfo]) -> dict[str, tuple[Ranges, ...]]:
        """What stays, in each dimension, of those of ``infos``, narrowed, of which not all does."""
        cut_infos = (info for info in infos if info.name in self.cuts)
        found = ((info.name, self.cuts[info.name].within_rows(torch_layout(info)[1])) for info in cut_infos)
        return {name: kept for name, kept in found if kept is not None}


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
    unmatched = {key for key, value in shard.items() if not (hasattr(value, "device_mesh") or _is_tensor(value))}
    globs = list(filter(is_glob, shard))
    for info in infos:
        key = info.name if info.name in shard else next((g for g in globs if fnmatch.fnmatchcase(info.name, g)), None)
        if key is None:
            continue
        unmatched.discard(key)
        if _is_whole(shard[key], info):
            continue
        cut = _cut(info, _deal(shard[key], position, key), _find_shape_here(shard[key]))
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
        odd = next((type(key).__name__ for key in shard or () if not isinstance(key, str)), None)
        if odd is not None:
            raise UsageError(f"shard= got a {odd} for a name", _HINT)
        merged = {**placed, **{key: value for key, value in (shard or {}).items() if key not in placed}}
        return merged or None
    if not callable(shard):
        raise UsageError(f"shard= got {type(shard).__name__}", _HINT)
    if placed:
        raise UsageError("shard= got a predicate for a module with DTensors", "They say themselves what is here")
    return shard


def _is_tensor(value: Any) -> bool:
    import torch  # noqa: PLC0415 - this module is imported without it

    return isinstance(value, torch.Tensor)


def _is_whole(value: Any, info: TensorInfo) -> bool:
    """True for a tensor that is no DTensor, as a module has them beside these: nobody has dealt it out.

    Raises:
        UsageError: it is another one than ``info``, or a part of it.
    """
    if hasattr(value, "device_mesh") or not _is_tensor(value):
        return False
    expected, found = torch_layout(info)[1], tuple(value.shape)
    if found != expected:
        what = f"shard= of {quoted(info.name)} got a tensor of shape {found}, and the model's is {expected}"
        raise UsageError(what, "Give a placement or a DTensor, which say what part of it is here")
    return True


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


def _find_shape_here(value: Any) -> tuple[int, ...] | None:
    """Of what a DTensor has in this process."""
    return tuple(value.to_local().shape) if hasattr(value, "to_local") else None


def _cut(info: TensorInfo, dealt: Sequence[_Dealt], here: tuple[int, ...] | None) -> Cut | None:
    """What is kept of ``info``; None: all of it. ``here``: the shape of what is there already to be filled."""
    shape = torch_layout(info)[1]
    splits = [split for each in dealt if (split := _read(each, info, len(shape))) is not None]
    cut = deal(shape, splits)
    if here is not None and any(split.turns > 1 for split in splits):
        cut = _as_fsdp_may(info, cut, deal(shape, innermost_first(splits)), here)
    if cut.shape == shape:
        return None
    _check_divisible(info, shape, cut)
    return cut


def _as_fsdp_may(info: TensorInfo, by_placements: Cut, by_fsdp: Cut, here: tuple[int, ...]) -> Cut:
    """The one of both that ``here`` shows: uneven sizes are dealt out by FSDP otherwise than its placements say."""
    if by_placements == by_fsdp or here != by_fsdp.shape:
        return by_placements
    if here == by_placements.shape:
        what = f"{quoted(info.name)}: FSDP gives this rank other rows than distribute_tensor does, but as many"
        raise UnsupportedError(what, "Pad it, so that it divides evenly: whose DTensor it is cannot be told")
    return by_fsdp


def _read(dealt: _Dealt, info: TensorInfo, rank: int) -> Split | None:
    """What a placement says; None: every rank has all."""
    from torch.distributed.tensor import Replicate, Shard, placement_types  # noqa: PLC0415 - a second, for who shards

    placement, position = dealt
    if isinstance(placement, Replicate):
        return None
    # FSDP writes these where another dimension of the mesh has dealt out the same; torch 2.4 has none yet.
    is_strided = type(placement) is getattr(placement_types, "_StridedShard", None)
    if type(placement) is not Shard and not is_strided:
        what = f"shard= of {quoted(info.name)} got {repr(placement).partition(chr(10))[0][:_SHOWN]}"
        raise UnsupportedError(what, "Shard(dim) and Replicate() can be read; make others from these")
    dim = int(placement.dim)
    if not -rank <= dim < rank:
        raise UsageError(f"shard= of {quoted(info.name)}: it has no dimension {dim}", "Replicate() it")
    turns = int(placement.split_factor) if is_strided else 1
    return Split(dim % rank, position.size, position.rank, turns)


def _check_divisible(info: TensorInfo, shape: tuple[int, ...], cut: Cut) -> None:
    """Elements that are less than a byte may be packed across what would be cut."""
    is_packed = bool(info.dtype.bits % 8)
    last_is_cut = cut.shape[-1] != shape[-1]
    if is_packed and (len(shape) != len(info.shape) or last_is_cut or not has_whole_rows(info)):
        what = f"{quoted(info.name)}, packed {info.dtype.name}, cannot be cut so"
        raise UnsupportedError(what, "Shard it in another dimension than the last, or Replicate() it")
