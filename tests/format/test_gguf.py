"""How long a GGUF file must be: headers written by hand, after the format's own description."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._format.gguf import CutError, measure_gguf


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tensor(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(*tensors: bytes, values: tuple[bytes, ...] = (), version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)) + b"".join(values + tensors)


VALUES = (
    text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
    text(b"llama.block_count") + struct.pack("<II", 4, 32),
    text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"<s>") + text(b"a"),
    text(b"tokenizer.ggml.scores") + struct.pack("<IIQ2f", 9, 6, 2, 0.5, 1.0),
)


def aligned(nbytes: int, to: int = 32) -> int:
    return -(-nbytes // to) * to


@pytest.mark.parametrize(("kind", "nbytes"), [(0, 4096), (1, 2048), (2, 576), (14, 840), (99, 1)])
def test_the_last_tensor_ends_the_file(kind: int, nbytes: int) -> None:
    start = header(tensor(b"b", (256, 4), kind, 4096), tensor(b"a", (1024,), 0, 0), values=VALUES)
    assert measure_gguf(start) == aligned(len(start)) + 4096 + nbytes


def test_the_alignment_may_be_said() -> None:
    said = text(b"general.alignment") + struct.pack("<II", 4, 4096)
    start = header(tensor(b"a", (4,), 0, 0), values=(said,))
    assert measure_gguf(start) == 4096 + 16


def test_without_tensors_the_header_is_all() -> None:
    start = header(values=VALUES)
    assert measure_gguf(start) == len(start)


@given(st.data())
def test_a_header_that_is_cut_anywhere_says_so(data: st.DataObject) -> None:
    start = header(tensor(b"a", (1024,), 0, 0), values=VALUES)
    with pytest.raises(CutError):
        measure_gguf(start[: data.draw(st.integers(0, len(start) - 1))])


@pytest.mark.parametrize(
    "start",
    [
        b"\0" * 64,
        header(version=1),
        header(values=(text(b"key") + struct.pack("<I", 77),)),
        header(values=(text(b"key") + struct.pack("<IIQ", 9, 9, 0),)),
        header(tensor(b"a", (1,) * 9, 0, 0)),
    ],
)
def test_what_is_not_understood_is_not_measured(start: bytes) -> None:
    assert measure_gguf(start) is None


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_answer(rest: bytes) -> None:
    try:
        measured = measure_gguf(b"GGUF\x03\0\0\0" + rest)
    except CutError:
        return
    assert measured is None or measured >= 0
