"""A checkpoint: the shards' headers and the index, agreed with one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastload._format.index import Index
from fastload.errors import FormatError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload._format.header import Header, TensorInfo


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


def build_checkpoint(shards: Sequence[Shard], index: Index | None) -> Checkpoint:
    """The checkpoint of ``shards``.

    Raises:
        FormatError: a name in two shards, or the index names a tensor its shard does not hold.
    """
    if index is None:
        _check_names_differ(shards)
    else:
        _check_index(shards, index)
    return Checkpoint(tuple(shards), index)


def layer(shards: Sequence[Shard]) -> Index:
    """An index by which a tensor that several of ``shards`` have is the last one's."""
    return Index("", {tensor.name: shard.name for shard in shards for tensor in shard.header.tensors}, {})


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


def _check_index(shards: Sequence[Shard], index: Index) -> None:
    held = {shard.name: {tensor.name for tensor in shard.header.tensors} for shard in shards}
    for tensor, name in index.shard_of.items():
        if tensor in held[name]:
            continue
        elsewhere = sorted(other for other, names in held.items() if tensor in names)
        found = f"it in {quoted(elsewhere[0])}" if elsewhere else "it in no shard"
        hint = "Index and shards are of different revisions: fetch the model again"
        raise FormatError(index.path, found, f"it in {quoted(name)}", tensor=tensor, hint=hint)
