"""The kernels that are brought along: they are what the source compiles to, and are launched in the shape they have."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import struct
import subprocess
import sys
import zlib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastload._place import gpu_digest_code
from fastload._place.gpu_digest import WORDS, BlockDigester
from fastload._place.gpu_digest_code import (
    ASSEMBLED,
    CAPABILITY,
    HASH_SLABS,
    KERNELS,
    Kernel,
    KernelLaunch,
    code_name,
    read_code,
)
from fastload._read.cuda_driver import CudaDriver
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import UnsupportedError

DEVICE = torch.device("cuda", 0)
ELF = b"\x7fELF\x02\x01\x01"
"""How what is assembled begins: an ELF of 64 bits, little endian."""
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


class Driver:
    """Takes down what it is called with."""

    def __init__(self, answer: int = 0, *, major: int = 9, takes: bytes = b"") -> None:
        """``answer`` to code that does not begin with what it ``takes``."""
        self._answer = answer
        self._major = major
        self._takes = takes
        self.loaded: list[bytes] = []
        self.calls: list[tuple[Any, ...]] = []
        self.arguments: list[list[int]] = []

    def answer(self, *_: Any) -> int:
        return 0

    cuInit = cuDeviceGet = cuDevicePrimaryCtxRetain = cuCtxSetCurrent = answer  # noqa: N815 - as CUDA calls them

    def cuDeviceGetAttribute(self, value: Any, attribute: Any, device: Any) -> int:  # noqa: N802 - as CUDA calls it
        assert attribute.value == 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        value._obj.value = self._major
        return 0

    def cuModuleLoadData(self, module: Any, image: Any) -> int:  # noqa: N802 - as CUDA calls it
        self.loaded.append(ELF if image.value.startswith(ELF) else image.value)  # a value ends at the first zero
        return 0 if self._takes and image.value.startswith(self._takes) else self._answer

    def cuModuleGetFunction(self, function: Any, module: Any, name: Any) -> int:  # noqa: N802 - as CUDA calls it
        function._obj.value = 0xF00 + len(name.value)
        return 0

    def cuLaunchKernel(self, *numbers: Any) -> int:  # noqa: N802 - as CUDA calls it
        *shape, pointers, extra = numbers
        self.calls.append((*shape, extra))
        kinds = [ctypes.c_uint64, ctypes.c_int32, *[ctypes.c_uint64] * (len(pointers) - 2)]
        self.arguments.append([kind.from_address(at).value for kind, at in zip(kinds, pointers, strict=True)])
        return self._answer


def use(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Driver:
    gpu_digest_code.load_function.cache_clear()
    monkeypatch.setattr(gpu_digest_code, "load_driver", lambda: CudaDriver(driver))
    monkeypatch.setattr(gpu_digest_code, "load_calls", lambda kind: driver if kind is ctypes.PyDLL else None)
    return driver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield use(Driver(), monkeypatch)
    gpu_digest_code.load_function.cache_clear()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_the_code_has_the_shape_that_it_is_launched_in(kernel: Kernel) -> None:
    ptx = read_code(kernel).decode("ascii")
    entry = re.search(rf"\.visible \.entry {kernel.name}\(([^)]*)\)", ptx)
    assert entry is not None
    assert re.findall(r"\.param \.(\w+)", entry[1]) == ["u64", "u32", "u64", "u64", "u64"]
    assert f".reqntid {kernel.threads}\n" in ptx
    assert f".target sm_{CAPABILITY}\n" in ptx
    assert ".version 8.0\n" in ptx  # drivers since 525
    assert (".extern .shared" in ptx) == bool(kernel.shared_bytes)
    assert ".local" not in ptx


def test_arguments_reach_the_kernel_in_its_shape_and_scratch_memory_is_null(driver: Driver) -> None:
    launch = KernelLaunch(HASH_SLABS, 0)
    launch(7, 0x57, 0xABCD_0000_1000, 12345, 0x1234_5678_9ABC)
    launch(1, 0x57, 0x1000, 1, 0x2000)
    assert driver.loaded == [ELF]
    assert driver.calls == [(0xF0A, n, 1, 1, 128, 1, 1, 4096, 0x57, None) for n in (7, 1)]
    assert driver.arguments == [[0xABCD_0000_1000, 12345, 0x1234_5678_9ABC, 0, 0], [0x1000, 1, 0x2000, 0, 0]]


def test_a_process_compiles_once(driver: Driver) -> None:
    for _ in range(3):
        KernelLaunch(HASH_SLABS, 0)
    assert len(driver.loaded) == 1


def test_a_digester_launches_both_kernels_over_whole_blocks(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, dtype, **_: real(*shape, dtype=dtype))
    digester = BlockDigester(DEVICE, 2 * BLOCK_BYTES)
    buffer = real(2 * BLOCK_BYTES, dtype=torch.uint8)
    stream: Any = SimpleNamespace(cuda_stream=0x57)
    digests = digester.digest_on(stream, buffer, BLOCK_BYTES + 1)
    values = digester._values.data_ptr()
    assert [call[1] for call in driver.calls] == [33, 2]
    assert driver.arguments[0] == [buffer.data_ptr(), BLOCK_BYTES + 1, values, 0, 0]
    assert driver.arguments[1] == [values, BLOCK_BYTES + 1, digests.data_ptr(), 0, 0]
    assert digests.shape == (2, WORDS)


@pytest.mark.parametrize("capability", ASSEMBLED.values())
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_what_is_assembled_is_for_its_generation(kernel: Kernel, capability: int) -> None:
    """By the header of its ELF: CUDA's machine, and flags that tell the capability."""
    code = read_code(kernel, capability)
    assert code.startswith(ELF)
    (machine,), (flags,) = struct.unpack_from("<H", code, 18), struct.unpack_from("<I", code, 48)
    assert machine == 190
    assert capability in {flags & 0xFF, flags >> 8 & 0xFF}
    assert kernel.name.encode() in code


@pytest.mark.parametrize("major", [7, 11, 13])
def test_for_a_generation_that_nothing_was_assembled_for_the_driver_compiles(
    monkeypatch: pytest.MonkeyPatch, major: int
) -> None:
    driver = use(Driver(major=major), monkeypatch)
    KernelLaunch(HASH_SLABS, 0)
    assert driver.loaded == [read_code(HASH_SLABS)]


def test_what_is_assembled_and_not_taken_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a driver that is older than the assembler."""
    driver = use(Driver(answer=209, takes=b"//"), monkeypatch)
    KernelLaunch(HASH_SLABS, 0)
    assert driver.loaded == [ELF, read_code(HASH_SLABS)]


def test_what_the_driver_cannot_compile_is_left_to_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    use(Driver(answer=218), monkeypatch)
    with pytest.raises(UnsupportedError, match="cuModuleLoadData with error 218"):
        KernelLaunch(HASH_SLABS, 0)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(UnsupportedError, match="triton"):
        BlockDigester(DEVICE, BLOCK_BYTES)


def test_an_error_of_a_launch_is_torchs_kind_of_error(driver: Driver) -> None:
    launch = KernelLaunch(HASH_SLABS, 0)
    driver._answer = 719
    with pytest.raises(RuntimeError, match="719"):
        launch(1, 0, 0, 0, 0)


@needs_triton
def test_the_code_is_what_the_source_compiles_to(tmp_path: Path) -> None:
    """`make code` makes it anew, by the Triton that is pinned: another one makes other code of the same source."""
    by = read_code(HASH_SLABS).decode().partition("\n")[0]
    if not by.endswith(f"with Triton {version('triton')}."):
        pytest.skip(f"here is Triton {version('triton')}, and {by[3:]}")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).with_name("make_kernels.py")
    subprocess.run([sys.executable, script, str(tmp_path)], env=environment, check=True, timeout=240)
    for kernel in KERNELS:
        for capability in (None, *ASSEMBLED.values()):
            made = (tmp_path / code_name(kernel, capability)).read_bytes()
            assert zlib.decompress(made) == read_code(kernel, capability), "run `make code`"


@needs_triton
@pytest.mark.parametrize("architecture", [80, 86, 89, 90, 100, 120])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_each_generation_of_devices_can_be_compiled_for(tmp_path: Path, kernel: Kernel, architecture: int) -> None:
    """As the driver will: by the same compiler, which Triton brings along."""
    from triton.knobs import nvidia

    code = tmp_path / "kernel.ptx"
    code.write_bytes(read_code(kernel))
    command = [nvidia.ptxas.path, f"-arch=sm_{architecture}", "-v", str(code), "-o", str(tmp_path / "kernel.cubin")]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "0 bytes spill stores" in run.stderr or "spill" not in run.stderr
