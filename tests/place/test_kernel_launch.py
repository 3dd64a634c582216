"""Kernels that are launched past Triton: only those whose parameters are known, each argument in its place."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from fastload._place import kernel_launch
from fastload._place.kernel_launch import find_launch, read_parameters

SIGNATURE = ("u64", "u32", "u64")
# As Triton 3.7 compiles for sm_90; its own parameters follow ours.
PTX = """
.version 8.7
.target sm_90a
.address_size 64
.visible .entry hash_slabs(
	.param .u64 .ptr .global .align 1 hash_slabs_param_0,
	.param .u32 hash_slabs_param_1,
	.param .u64 .ptr .global .align 1 hash_slabs_param_2,
	.param .u64 .ptr .global .align 1 hash_slabs_param_3,
	.param .u64 .ptr .global .align 1 hash_slabs_param_4
)
.reqntid 128
{
	.param .b32 not_a_parameter;
}
"""


def compiled(ptx: str = PTX, **metadata: Any) -> Any:
    known = {
        "name": "hash_slabs",
        "num_warps": 4,
        "num_ctas": 1,
        "shared": 4096,
        "global_scratch_size": 0,
        "profile_scratch_size": 0,
        "launch_cooperative_grid": False,
        "launch_pdl": False,
    }
    return SimpleNamespace(asm={"ptx": ptx}, function=0xF00, metadata=SimpleNamespace(**{**known, **metadata}))


class Driver:
    """Takes down what it is called with."""

    def __init__(self, answer: int = 0) -> None:
        self._answer = answer
        self.calls: list[tuple[Any, ...]] = []
        self.arguments: list[list[int]] = []

    def cuLaunchKernel(self, function: Any, *numbers: Any) -> int:  # noqa: N802 - as CUDA calls it
        *shape, pointers, extra = numbers
        self.calls.append((function.value, *shape, extra))
        kinds = [ctypes.c_uint64, ctypes.c_int32, *[ctypes.c_uint64] * (len(pointers) - 2)]
        self.arguments.append([kind.from_address(at).value for kind, at in zip(kinds, pointers, strict=True)])
        return self._answer


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(kernel_launch, "load_calls", lambda kind: driver if kind is ctypes.PyDLL else None)
    return driver


def test_the_parameters_are_those_of_the_entry() -> None:
    assert read_parameters(PTX, "hash_slabs") == ["u64", "u32", "u64", "u64", "u64"]
    assert read_parameters(PTX, "hash") == []
    assert read_parameters("", "hash_slabs") == []


def test_arguments_reach_the_kernel_and_what_triton_added_is_null(driver: Driver) -> None:
    launch = find_launch(compiled(), SIGNATURE)
    assert launch is not None
    launch(7, 0x57, 0xABCD_0000_1000, 12345, 0x1234_5678_9ABC)
    launch(1, 0x57, 0x1000, 1, 0x2000)
    assert driver.calls == [(0xF00, n, 1, 1, 128, 1, 1, 4096, 0x57, None) for n in (7, 1)]
    assert driver.arguments == [[0xABCD_0000_1000, 12345, 0x1234_5678_9ABC, 0, 0], [0x1000, 1, 0x2000, 0, 0]]


def test_an_error_of_the_driver_is_torchs_kind_of_error(driver: Driver) -> None:
    driver._answer = 719
    launch = find_launch(compiled(), SIGNATURE)
    assert launch is not None
    with pytest.raises(RuntimeError, match="719"):
        launch(1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("ptx", "metadata"),
    [
        (PTX, {"global_scratch_size": 64}),
        (PTX, {"profile_scratch_size": 64}),
        (PTX, {"num_ctas": 2}),
        (PTX, {"launch_cooperative_grid": True}),
        (PTX, {"launch_pdl": True}),
        (PTX, {"name": "another"}),
        (PTX.replace(".param .u32", ".param .u64"), {}),
        (PTX.replace("u64 .ptr .global .align 1 hash_slabs_param_4", "u32 hash_slabs_param_4"), {}),
        ("", {}),
    ],
)
def test_kernels_of_another_form_are_left_to_triton(driver: Driver, ptx: str, metadata: dict[str, Any]) -> None:
    assert find_launch(compiled(ptx, **metadata), SIGNATURE) is None
