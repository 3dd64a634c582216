"""Checkpoints made of nothing but headers, for tests of what is computed from headers alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st

from fastload._format.checkpoint import Checkpoint, FileIdentity, Shard
from fastload._format.dtype import DTYPES
from fastload._format.header import Header, TensorInfo
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Sized(NamedTuple):
    """A tensor to be: its name, dtype and element count."""

    name: str
    dtype: str
    elements: int


def header_of(tensors: Iterable[Sized], *, data_start: int = 100) -> Header:
    """The header of a shard that holds ``tensors`` back to back."""
    at = data_start
    infos = []
    for name, spelling, elements in tensors:
        dtype = DTYPES[spelling]
        nbytes, rest = divmod(elements * dtype.bits, 8)
        assert not rest, "a tensor is whole bytes"
        infos.append(TensorInfo(name, dtype, (elements,), at, at + nbytes))
        at += nbytes
    return Header(tuple(infos), {}, data_start, at, "")


def shard_of(header: Header, name: str = "model.safetensors") -> Shard:
    return Shard(name, f"/nowhere/{name}", header, FileIdentity(0, 0, header.file_bytes, 0, 0))


def checkpoint_of(*shards: Sequence[Sized], data_start: int = 100) -> Checkpoint:
    """A checkpoint without index; the shards are numbered in order."""
    headers = [header_of(tensors, data_start=data_start) for tensors in shards]
    return Checkpoint(tuple(shard_of(header, f"{n}.safetensors") for n, header in enumerate(headers)), None)


@st.composite
def sized_tensors(draw: st.DrawFn, *, max_bytes: int, max_count: int = 12) -> list[Sized]:
    """Tensors of any dtype: empty ones, tiny ones, and some that reach over the border of a block."""
    tensors = []
    left = max_bytes
    for number in range(draw(st.integers(0, max_count))):
        spelling = draw(st.sampled_from(sorted(DTYPES)))
        unit = math.lcm(DTYPES[spelling].bits, 8) // 8
        wish = draw(
            st.one_of(st.just(0), st.integers(1, 64), st.integers(65, 70_000), st.integers(BLOCK_BYTES - 99, left))
            if left >= BLOCK_BYTES
            else st.integers(0, min(64, left))
        )
        nbytes = min(wish, left) // unit * unit
        left -= nbytes
        tensors.append(Sized(f"t{number}", spelling, nbytes * 8 // DTYPES[spelling].bits))
    return tensors
