"""Stored bytes as tensors: the dtype, the shape, and what torch lacks."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from fastload._format.dtype import CASTABLE, DTYPES, UNTOUCHED
from fastload._format.header import TensorInfo
from fastload._place.tensors import (
    TORCH_DTYPES,
    check_castable,
    cut_out,
    is_castable,
    parse_cast,
    tensor_over,
    torch_layout,
    view_bytes,
)
from fastload.errors import UnsupportedError, UsageError
from writing import pack

BY_TORCH = {  # written out by hand: the table must not be compared with itself
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}


def info_of(dtype: str, *shape: int, name: str = "t") -> TensorInfo:
    bits = DTYPES[dtype].bits
    for length in shape:
        bits *= length
    return TensorInfo(name, DTYPES[dtype], shape, 0, bits // 8)


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).tolist())


def bytes_of(dtype: str, count: int) -> bytes:
    return bytes(n % 2 for n in range(count)) if dtype == "BOOL" else bytes(n * 37 % 251 for n in range(count))


def test_every_dtype_of_the_format_has_its_case_here() -> None:
    assert BY_TORCH.keys() | {"F4", "F6_E2M3", "F6_E3M2"} == DTYPES.keys()


@pytest.mark.parametrize("spelling", BY_TORCH)
@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3), (3, 0, 2), (1, 1, 1, 1, 5)])
def test_bytes_become_a_tensor_of_that_dtype_and_shape(spelling: str, shape: tuple[int, ...]) -> None:
    info = info_of(spelling, *shape)
    data = bytes_of(spelling, info.nbytes)
    over = tensor_over(memoryview(bytearray(data)), info)
    viewed = view_bytes(torch.frombuffer(bytearray(data + b"\0"), dtype=torch.uint8)[: info.nbytes], info)
    for tensor in (over, viewed):
        assert tensor.dtype == BY_TORCH[spelling]
        assert tuple(tensor.shape) == shape
        assert raw(tensor) == data


@pytest.mark.parametrize("spelling", sorted(BY_TORCH.keys() & safetensors.torch._TYPES.keys()))
def test_safetensors_itself_makes_the_same_tensor(spelling: str) -> None:
    info = info_of(spelling, 4, 3)
    data = bytes_of(spelling, info.nbytes)
    theirs = safetensors.torch.load(pack({"t": (spelling, [4, 3], data)}))["t"]
    ours = tensor_over(memoryview(bytearray(data)), info)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert raw(ours) == raw(theirs)


@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 6), (4, 3)), ((2,), (1,)), ((3, 2), (3, 1)), ((2, 0), (2, 0)), ((0, 4), (0, 2))]
)
def test_f4_is_torchs_pair_type_and_the_last_dimension_halves(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    info = info_of("F4", *shape)
    tensor = tensor_over(memoryview(bytearray(bytes_of("F4", info.nbytes))), info)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.float4_e2m1fn_x2, expected)
    assert raw(tensor) == bytes_of("F4", info.nbytes)


@pytest.mark.parametrize(
    "info", [info_of("F4", 2, 3), info_of("F4", 0, 3), info_of("F6_E2M3", 4), info_of("F6_E3M2", 2, 8)]
)
def test_what_torch_cannot_shape_is_packed_bytes(info: TensorInfo) -> None:
    data = bytes_of(info.dtype.name, info.nbytes)
    tensor = tensor_over(memoryview(bytearray(data)), info)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.uint8, (info.nbytes,))
    assert raw(tensor) == data


def test_a_torch_without_the_dtype_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TORCH_DTYPES, "F8_E8M0", None)
    with pytest.raises(UnsupportedError, match="F8_E8M0"):
        torch_layout(info_of("F8_E8M0", 2))


@pytest.mark.parametrize("shape", [(0, 1 << 63), (0, 1 << 62, 1 << 62), (0, (1 << 64) - 1)])
@pytest.mark.parametrize("spelling", ["U8", "F64"])
def test_an_empty_shape_that_torch_cannot_hold_is_unsupported(shape: tuple[int, ...], spelling: str) -> None:
    with pytest.raises(UnsupportedError, match=r"'b\\n'.*shape \[.*tensors="):
        torch_layout(TensorInfo("b\n", DTYPES[spelling], shape, 8, 8))


@pytest.mark.parametrize("shape", [(0, 1 << 40), (1 << 40, 0), (1 << 59, 3, 0)])
def test_an_empty_shape_that_torch_can_hold_is_given_and_cast(shape: tuple[int, ...]) -> None:
    tensor = tensor_over(memoryview(b""), TensorInfo("t", DTYPES["BF16"], shape, 8, 8))
    assert (tensor.shape, tensor.double().shape) == (shape, shape)


@pytest.mark.parametrize("shape", [(0, 3), (2,)])
def test_a_default_device_changes_nothing(shape: tuple[int, ...]) -> None:
    info = info_of("F32", *shape)
    with torch.device("meta"):
        tensor = tensor_over(memoryview(bytearray(info.nbytes)), info)
    assert tensor.device == torch.device("cpu")


def test_a_tensor_over_memory_has_a_storage_of_its_own() -> None:
    memory = memoryview(bytearray(100))
    tensor = tensor_over(memory[10:14], info_of("U8", 4))
    assert tensor.untyped_storage().nbytes() == 4
    tensor.fill_(7)
    assert bytes(memory[9:15]) == b"\0\7\7\7\7\0"


@pytest.mark.parametrize("name", ["BF16", "F16", "F32", "F64"])
def test_a_cast_is_asked_for_in_either_spelling(name: str) -> None:
    assert parse_cast(name) == parse_cast(BY_TORCH[name]) == BY_TORCH[name]


@pytest.mark.parametrize("wish", ["bf16", "bfloat16", "I32", "", torch.int8, torch.float8_e4m3fn, None, 16])
def test_a_cast_to_anything_else_is_refused(wish: object) -> None:
    with pytest.raises(UsageError, match="Use one of BF16, F16, F32, F64"):
        parse_cast(wish)  # type: ignore[arg-type] # what a caller without a type checker may pass


def test_floats_are_cast_and_integers_left_alone() -> None:
    check_castable([info_of(name, 2) for name in CASTABLE | UNTOUCHED])
    assert {name for name in DTYPES if is_castable(info_of(name, 12))} == {"F64", "F32", "F16", "BF16"}


@pytest.mark.parametrize("spelling", sorted(DTYPES.keys() - CASTABLE - UNTOUCHED))
def test_what_may_be_quantised_is_not_cast_and_is_named(spelling: str) -> None:
    with pytest.raises(UsageError, match=r"'b\\n'.*" + spelling):
        check_castable([info_of("F32", 2, name="a"), info_of(spelling, 12, name="b\n")])


def test_nothing_to_cast_is_nothing_to_refuse() -> None:
    check_castable([])


@pytest.mark.parametrize("rows", [(), ((1, 3),), ((0, 1), (2, 4)), ((0, 5),)])
@pytest.mark.parametrize("columns", [(), ((2, 4),), ((0, 2), (3, 4), (5, 6)), ((0, 6),)])
def test_what_is_cut_out_has_memory_of_its_own(
    rows: tuple[tuple[int, int], ...], columns: tuple[tuple[int, int], ...]
) -> None:
    whole = torch.arange(5 * 6, dtype=torch.int16).view(5, 6)
    at = [[number for begin, end in ranges for number in range(begin, end)] for ranges in (rows, columns)]
    found = cut_out(whole, (rows, columns))
    assert torch.equal(found, whole[at[0]][:, at[1]])
    assert found.is_contiguous()
    assert found.untyped_storage().nbytes() == found.nbytes
    assert not found.nbytes or found.data_ptr() != whole.data_ptr()
