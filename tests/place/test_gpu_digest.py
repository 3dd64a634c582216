"""Block digests by the GPU's kernels: on a CUDA device where there is one, else in Triton's interpreter on the CPU.

The interpreter pays per operation: a digest takes it about a second, however short the block, so lengths are few here.
All of them, on a device: `make test-gpu`.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import random
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from blake3 import blake3

import fastload._place
from fastload._place import gpu_digest
from fastload._place.device_digests import DeviceDigests
from fastload._place.gpu_digest import BlockDigester, to_hex, warm_up
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_KIB = 1 << 10
_KERNELS = "fastload._place.gpu_digest_kernel"
_CONTENT_BYTES = 2 * BLOCK_BYTES + (1 << 20)
_POWERS = range(13)  # of two, in chunks of 1 KiB: up to a block
_EDGES = [0, 1, 63, 64, 65, 1023, 1024, 1025, 4 * _KIB, BLOCK_BYTES]
_AROUND_POWERS = [(_KIB << power) + by for power in _POWERS for by in (-1, 1)]
_SAMPLES = random.Random(7).sample(range(BLOCK_BYTES), 2)  # noqa: S311 - which lengths

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
needs_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def forget_kernels() -> None:
    """Their next import defines them anew: whether they are interpreted is decided then."""
    sys.modules.pop(_KERNELS, None)
    vars(fastload._place).pop("gpu_digest_kernel", None)


@pytest.fixture(scope="module")
def device() -> Iterator[torch.device]:
    if torch.cuda.is_available():
        yield torch.device("cuda", torch.cuda.current_device())
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        forget_kernels()
        yield torch.device("cpu")
    forget_kernels()


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(1).randbytes(_CONTENT_BYTES)  # noqa: S311 - content


@pytest.fixture(scope="module")
def buffer(device: torch.device, content: bytes) -> torch.Tensor:
    """The content on the device: what lies beyond a tested length is never zero, nor what was there before."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).to(device)


def expected_digests(content: bytes, length: int) -> list[str]:
    starts = range(0, max(length, 1), BLOCK_BYTES)
    return [blake3(content[start : min(start + BLOCK_BYTES, length)]).hexdigest() for start in starts]


def digest(buffer: torch.Tensor, length: int) -> list[str]:
    return to_hex(BlockDigester(buffer.device, max(length, 1)).digest(buffer, length))


@needs_triton
@pytest.mark.parametrize("length", sorted({*_EDGES, *_AROUND_POWERS, *_SAMPLES}))
def test_digests_are_those_of_blake3(buffer: torch.Tensor, content: bytes, length: int) -> None:
    assert digest(buffer, length) == expected_digests(content, length)


@needs_triton
def test_each_block_of_a_buffer_is_a_hash_of_its_own(buffer: torch.Tensor, content: bytes) -> None:
    length = 2 * BLOCK_BYTES + 3 * _KIB + 1
    found = digest(buffer, length)
    assert found == expected_digests(content, length)
    assert len(found) == 3


@needs_triton
@pytest.mark.parametrize(("slab_chunks", "length"), [(1024, (2 << 20) + 5 * _KIB + 1), (128, 257 * _KIB + 3)])
def test_slabs_join_into_one_tree(buffer: torch.Tensor, content: bytes, slab_chunks: int, length: int) -> None:
    digester = BlockDigester(buffer.device, BLOCK_BYTES, slab_chunks=slab_chunks)
    assert to_hex(digester.digest(buffer, length)) == expected_digests(content, length)


@needs_triton
def test_a_digester_keeps_nothing_of_the_buffer_before(buffer: torch.Tensor, content: bytes) -> None:
    digester = BlockDigester(buffer.device, BLOCK_BYTES, slab_chunks=16)
    for length in (17 * _KIB + 1, 5, 0):
        assert to_hex(digester.digest(buffer, length)) == expected_digests(content, length)


@needs_triton
@pytest.mark.parametrize("garbage", [0x00, 0xFF])
def test_what_lies_beyond_the_length_does_not_matter(buffer: torch.Tensor, content: bytes, garbage: int) -> None:
    length = 2 * _KIB + 7
    other = buffer[: 3 * _KIB].clone()
    other[length:] = garbage
    assert digest(other, length) == expected_digests(content, length)


@needs_triton
@pytest.mark.parametrize(
    ("give", "length", "says"),
    [
        (lambda b: b, BLOCK_BYTES + 1, f"{BLOCK_BYTES + 1} bytes to digest in a buffer of {BLOCK_BYTES}"),
        (lambda b: b, -1, "-1 bytes to digest"),
        (lambda b: b[:100], 65, "reach to a multiple of 64"),
        (lambda b: b[1:], 64, "aligned to 16"),
        (lambda b: b[::2], 64, "contiguous"),
        (lambda b: b.view(torch.int32), 64, "bytes on"),
        (lambda b: b[:1024].view(2, 512), 64, "bytes on"),
    ],
)
def test_other_buffers_are_refused(
    buffer: torch.Tensor, give: Callable[[torch.Tensor], torch.Tensor], length: int, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        BlockDigester(buffer.device, BLOCK_BYTES).digest(give(buffer), length)


@pytest.mark.parametrize("buffer_bytes", [0, gpu_digest.MAX_BYTES + 1])
def test_buffers_are_bounded(buffer_bytes: int) -> None:
    with pytest.raises(UsageError, match=f"{buffer_bytes} bytes cannot be digested at once"):
        BlockDigester(torch.device("cpu"), buffer_bytes)


@needs_triton
def test_warming_up_proves_the_kernels(device: torch.device) -> None:
    assert warm_up(device).result(timeout=120) is None


class _Kernel:
    """Stands in for a kernel: launched, it raises what it was given, or writes nothing."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: object, **options: object) -> None:
            if self._error is not None:
                raise self._error

        return launch


def refusal_with(device: torch.device, monkeypatch: pytest.MonkeyPatch, kernel: _Kernel) -> UnsupportedError:
    kernels = gpu_digest._load_kernels(device)
    monkeypatch.setattr(kernels, "hash_slabs", _Kernel())
    monkeypatch.setattr(kernels, "hash_blocks", kernel)
    error = warm_up(device).exception(timeout=120)
    assert isinstance(error, UnsupportedError)
    return error


@needs_triton
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, "Read-only file system", "/root/.triton"),
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        subprocess.CalledProcessError(1, ["gcc", "main.c"]),
        AssertionError(),
    ],
)
def test_why_there_can_be_no_digests_is_said(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = refusal_with(device, monkeypatch, _Kernel(error))
    assert f"no block digests on {device}: {type(error).__name__}: {error}" in str(found)
    assert "TRITON_CACHE_DIR" in found.hint
    assert found.__cause__ is error


@needs_triton
def test_a_compilers_error_gives_its_cause(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = ValueError("at 12:8:\n    source\n    ^")
    wrapped.__cause__ = TypeError("no such thing")
    assert "TypeError: no such thing" in str(refusal_with(device, monkeypatch, _Kernel(wrapped)))


@needs_triton
def test_kernels_that_find_something_else_are_not_believed(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is right" in str(refusal_with(device, monkeypatch, _Kernel()))


def test_without_triton_there_are_no_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, _KERNELS, raising=False)
    monkeypatch.delattr(fastload._place, "gpu_digest_kernel", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    error = warm_up(torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")).exception(timeout=60)
    assert isinstance(error, UnsupportedError)
    assert "triton" in str(error)
    assert "Install triton" in error.hint


def test_without_a_thread_for_them_there_are_no_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU digests then: no reason to end a load."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    error = warm_up(torch.device("cuda", 0)).exception(timeout=0)
    assert isinstance(error, UnsupportedError)
    assert "no block digests on cuda:0: can't start new thread" in str(error)


@needs_triton
@pytest.mark.parametrize(("is_interpreted", "kind", "says"), [(False, "cpu", "cuda here"), (True, "cuda", "INTERPRET")])
def test_kernels_run_on_their_own_kind_of_device(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, *, is_interpreted: bool, kind: str, says: str
) -> None:
    monkeypatch.setattr(gpu_digest._load_kernels(device), "IS_INTERPRETED", is_interpreted)
    with pytest.raises(UnsupportedError, match=says):
        BlockDigester(torch.device(kind), BLOCK_BYTES)


_COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fastload._place import gpu_digest_kernel

name, pointers, lanes, warps, architecture = sys.argv[1], sys.argv[2].split(), *map(int, sys.argv[3:])
signature = {pointers[0]: pointers[1], "length": "i32", pointers[2]: "*i32", "lanes": "constexpr"}
aligned = {(0,): [["tt.divisibility", 16]], (2,): [["tt.divisibility", 16]]}
source = ASTSource(getattr(gpu_digest_kernel, name), signature, constexprs={"lanes": lanes}, attrs=aligned)
options = {"num_warps": warps, **gpu_digest_kernel.OPTIONS}
print(compile(source, target=GPUTarget("cuda", architecture, 32), options=options).asm["ptx"])
"""


def compile_for(architecture: int, cache: Path, name: str, pointers: str, *sizes: int) -> str:
    """The code of a kernel for that generation of GPUs, compiled as a load compiles it; a warning is an error."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-W", "error", "-c", _COMPILE, name, pointers, *map(str, (*sizes, architecture))]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=240).stdout


@needs_triton
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_messages_are_loaded_sixteen_bytes_at_a_time(tmp_path: Path, architecture: int) -> None:
    """What the interpreter cannot tell: the kernel compiles for A100, H100 and B200, and as its docstring says."""
    ptx = compile_for(architecture, tmp_path, "hash_slabs", "buffer *u8 values", 128, 4)
    assert ptx.count("ld.global.v4.b32") == 8  # the first message, and the next one in the loop
    assert ptx.count("ld.global") == 8
    assert ".local" not in ptx  # no register spills into memory


@needs_triton
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_the_second_kernel_compiles_too(tmp_path: Path, architecture: int) -> None:
    assert ".local" not in compile_for(architecture, tmp_path, "hash_blocks", "values *i32 digests", 32, 1)


@needs_triton
def test_a_device_without_room_for_digests_leaves_them_to_the_cpu(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = DeviceDigests(device)
    assert digests._ready.exception(timeout=120) is None

    def refuse(*shape: int, **options: object) -> torch.Tensor:
        raise torch.OutOfMemoryError(f"CUDA out of memory: {shape}")

    monkeypatch.setattr(torch, "empty", refuse)
    assert digests.open(BLOCK_BYTES) is None
    assert digests.explain() == f"{device} had no room left for digests"


@needs_triton
@needs_device
@pytest.mark.gpu
def test_every_chunk_boundary_of_a_block(buffer: torch.Tensor, content: bytes) -> None:
    around = (boundary + by for boundary in range(0, BLOCK_BYTES + 1, _KIB) for by in (-1, 0, 1))
    lengths = [length for length in around if 0 <= length <= BLOCK_BYTES]
    found = torch.empty(len(lengths), 8, dtype=torch.int32, device=buffer.device)
    digester = BlockDigester(buffer.device, BLOCK_BYTES)
    for row, length in enumerate(lengths):
        found[row] = digester.digest(buffer, length)[0]
    wrong = [n for n, digest in zip(lengths, to_hex(found), strict=True) if [digest] != expected_digests(content, n)]
    assert not wrong


@needs_triton
@needs_device
@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_digests_are_taken_in_the_order_of_the_stream(buffer: torch.Tensor, content: bytes) -> None:
    """Nothing waits for the device, nothing is allocated, and what the stream does before is seen."""
    lane, slot_bytes = torch.cuda.Stream(buffer.device), 2 * BLOCK_BYTES
    source = torch.frombuffer(bytearray(content[:slot_bytes]), dtype=torch.uint8).pin_memory()
    torch.cuda.synchronize()
    with torch.cuda.stream(lane):
        slot = torch.zeros(slot_bytes, dtype=torch.uint8, device=buffer.device)
        digester = BlockDigester(buffer.device, slot_bytes)
        digester.digest(slot, slot_bytes)  # compiled
        allocations = count_allocations()
        torch.cuda.set_sync_debug_mode("error")
        try:
            slot.copy_(source, non_blocking=True)
            digests = digester.digest(slot, slot_bytes)
            slot.zero_()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert count_allocations() == allocations
        assert to_hex(digests) == expected_digests(content, slot_bytes)


def count_allocations() -> Any:
    return torch.cuda.memory_stats()["allocation.all.allocated"]
