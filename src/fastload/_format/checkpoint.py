"""A checkpoint: the shards' headers and the index, agreed with one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastload._format.index import SHARD_SUFFIX, Index
from fastload._format.select import is_remnant
from fastload.errors import FormatError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fastload._format.header import Header, TensorInfo

_SHOWN = 3
"""Of the shards that an index leaves out."""


class FileIdentity(NamedTuple):
    """Which file, and which state of it: one whose identity differs after a read is not what was planned for."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file and its header."""

    name: str
    """Relative to the checkpoint's folder, as the index spells it."""
    path: str
    """Absolute."""
    header: Header
    identity: FileIdentity
    """The file's when the header was read."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Shards in the order in which they were chosen; every tensor name counts in exactly one of them."""

    shards: tuple[Shard, ...]
    index: Index | None

    def tensors(self) -> Iterator[tuple[int, TensorInfo]]:
        """``(shard number, tensor)`` in file order; what an index does not name is left out."""
        for number, shard in enumerate(self.shards):
            for tensor in shard.header.tensors:
                if self.index is None or self.index.shard_of.get(tensor.name) == shard.name:
                    yield number, tensor

    @property
    def is_named_by_headers(self) -> bool:
        """True if which tensors there are, the headers of all shards say together."""
        return self.index is None or self.index.is_by_headers

    def find_unnamed(self) -> Iterator[str]:
        """The tensors that no entry of an index names: they are left out."""
        if self.index is not None:
            held = (tensor.name for shard in self.shards for tensor in shard.header.tensors)
            yield from (name for name in held if name not in self.index.shard_of)


def build_checkpoint(shards: Sequence[Shard], index: Index | None, beside: Iterable[str] = ()) -> Checkpoint:
    """The checkpoint of ``shards``.

    Args:
        shards: those that count.
        index: what named them; None: nothing did.
        beside: the names of the files in their folder, asked for only where a tensor is in none of the shards.

    Raises:
        FormatError: a name in two shards, or the index names a tensor its shard does not hold.
    """
    if index is None:
        _check_names_differ(shards)
    else:
        _check_index(shards, index, beside)
    return Checkpoint(tuple(shards), index)


def layer(shards: Sequence[Shard], chosen_by: Index | None = None, beside: Iterable[str] = ()) -> Index:
    """An index by which a tensor that several of ``shards`` have is the last one's.

    ``beside`` is as for :func:`build_checkpoint`.

    Raises:
        FormatError: ``chosen_by``, which named the shards, names a tensor that none of them holds.
    """
    shard_of = {tensor.name: shard.name for shard in shards for tensor in shard.header.tensors}
    if chosen_by is not None:
        lost = next((tensor for tensor in chosen_by.shard_of if tensor not in shard_of), None)
        if lost is not None:
            raise _misplaced(chosen_by, lost, _nowhere(chosen_by, beside))
    return Index("" if chosen_by is None else chosen_by.path, shard_of, {}, is_by_headers=True)


def _check_names_differ(shards: Sequence[Shard]) -> None:
    if len(shards) == 1:
        return  # in one header they do
    first: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.header.tensors:
            other = first.setdefault(tensor.name, shard.name)
            if other != shard.name:
                hint = "Two checkpoints share this folder, or the index is missing: give the path of one file"
                expected = f"it in one shard ({quoted(other)} has it too)"
                raise FormatError(shard.path, "it here", expected, tensor=tensor.name, hint=hint)


def _check_index(shards: Sequence[Shard], index: Index, beside: Iterable[str]) -> None:
    held = {shard.name: {tensor.name for tensor in shard.header.tensors} for shard in shards}
    for tensor, name in index.shard_of.items():
        if tensor in held[name]:
            continue
        elsewhere = sorted(other for other, names in held.items() if tensor in names)
        raise _misplaced(index, tensor, f"it in {quoted(elsewhere[0])}" if elsewhere else _nowhere(index, beside))


def _nowhere(index: Index, beside: Iterable[str]) -> str:
    """That a tensor is in no shard; and in which it may be, since the index leaves them out."""
    said, named = "it in no shard that the index names", set(index.shard_of.values())
    others = sorted(n for n in beside if n.endswith(SHARD_SUFFIX) and n not in named and not is_remnant(n))
    shown = ", ".join(map(quoted, others[:_SHOWN])) + (", …" if len(others) > _SHOWN else "")
    return f"{said} (beside it, and not named: {shown})" if others else said


def _misplaced(index: Index, tensor: str, found: str) -> FormatError:
    hint = "Index and shards are of different revisions: fetch the model again"
    return FormatError(index.path, found, f"it in {quoted(index.shard_of[tensor])}", tensor=tensor, hint=hint)
