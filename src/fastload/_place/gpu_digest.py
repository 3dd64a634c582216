"""Block digests on the GPU, taken where the bytes landed: storage, host memory and PCIe are covered, the CPU is free.

The staging slot holds bytes as they lie in the file, whole blocks but for the file's last. Two kernels
(:mod:`fastload._place.gpu_digest_kernel`) bring them to one BLAKE3 each, in order on the lane's stream. Nothing waits
for the device, and nothing is allocated: the digests lie on the device until their lane copies them out.

The kernels are brought along as code (:mod:`fastload._place.gpu_digest_code`); for devices that do not take it, Triton
compiles them. No load should wait for either. :func:`warm_up` does it beside the load, proves the result on bytes whose
digest the CPU knows, and says why where that cannot be had; the CPU hashes meanwhile, and for good where it fails.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from fastload._place.gpu_digest_code import HASH_BLOCKS, HASH_SLABS, KernelLaunch
from fastload._verify.digest import BLOCK_BYTES, block_digest, count_blocks
from fastload.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    Launches = tuple[KernelLaunch, KernelLaunch]

_log = logging.getLogger("fastload")

WORDS = 8
"""A digest is eight little-endian words; torch knows int32 better than uint32, and the bits are the same."""
MAX_BYTES = 1 << 30  # 1 GiB: the kernels count bytes in 32 bits
_CHUNK_BYTES = 1 << 10
_BLOCK_CHUNKS = BLOCK_BYTES // _CHUNK_BYTES
_MESSAGE_BYTES = 64
_ALIGNMENT_BYTES = 16
_INTERPRETED_SLAB_CHUNKS = 4096
"""The interpreter pays per operation, not per lane: 128 chunks a program would take it half a minute for a block."""
_PROBE_BYTES = (HASH_SLABS.lanes + 2) * _CHUNK_BYTES + 5
"""A whole slab and a piece of one, an odd number of chunks and a cut word: every way through both kernels."""


def to_hex(digests: torch.Tensor) -> list[str]:
    """Digests [blocks, 8] int32 as 64 hex digits each. Waits for the device where they are still there."""
    return [struct.pack(f"<{WORDS}i", *words).hex() for words in digests.tolist()]


class BlockDigester:
    """Takes the block digests of one buffer at a time, of up to ``buffer_bytes``, with memory that it keeps.

    Make and use it under one stream: its memory belongs to the current one, which also keeps a call's results from
    being overwritten by the next before they were copied out.
    """

    def __init__(self, device: torch.device, buffer_bytes: int, *, slab_chunks: int | None = None) -> None:
        """``slab_chunks``: how many a program of Triton's takes; None: what suits, by the kernels brought along.

        Raises:
            UsageError: too large a buffer.
            UnsupportedError: no Triton, or not a CUDA device.
        """
        if not 0 < buffer_bytes <= MAX_BYTES:
            raise UsageError(f"a buffer of {buffer_bytes} bytes cannot be digested at once", f"at most {MAX_BYTES}")
        self._launches = _find_launches(device) if slab_chunks is None else None
        self._kernels: Any = None if self._launches else _load_kernels(device)
        is_interpreted = self._kernels is not None and self._kernels.IS_INTERPRETED
        self._slab_chunks = slab_chunks or (_INTERPRETED_SLAB_CHUNKS if is_interpreted else HASH_SLABS.lanes)
        self._block_slabs = _BLOCK_CHUNKS // self._slab_chunks
        self._buffer_bytes = buffer_bytes
        blocks = _count_digests(buffer_bytes)
        self._values = torch.empty(blocks * self._block_slabs, WORDS, dtype=torch.int32, device=device)
        self._digests = torch.empty(blocks, WORDS, dtype=torch.int32, device=device)
        self._device = self._digests.device  # with the number that "cuda" lacks
        self._values_at = self._values.data_ptr()

    def digest(self, buffer: torch.Tensor, length: int) -> torch.Tensor:
        """The digests of the blocks in the first ``length`` bytes of ``buffer``.

        Args:
            buffer: [bytes] uint8 on the device, aligned to 16; a block begins at every multiple of 4 MiB.
            length: in bytes; what lies beyond does not matter, but up to 63 bytes of it are read: they must be there.

        Returns:
            [blocks, 8] int32, valid in the order of the device's current stream, until the next call. No bytes at all
            are one empty block.

        Raises:
            UsageError: the buffer is not of this kind.
        """
        self._check_buffer(buffer, length)
        digests = self._digests[: _count_digests(length)]
        if self._launches is None:
            self._digest_by_triton(buffer, length, digests)
        else:
            self._queue(self._launches, torch.cuda.current_stream(self._device), buffer, length, digests)
        return digests

    def digest_on(self, stream: torch.cuda.Stream, buffer: torch.Tensor, length: int) -> torch.Tensor:
        """:meth:`digest`, in the order of ``stream``, for a buffer that is known to be of the right kind."""
        if self._launches is None:
            with torch.cuda.stream(stream):
                return self.digest(buffer, length)
        digests = self._digests[: _count_digests(length)]
        self._queue(self._launches, stream, buffer, length, digests)
        return digests

    def _queue(
        self, launches: Launches, stream: torch.cuda.Stream, buffer: torch.Tensor, length: int, digests: torch.Tensor
    ) -> None:
        hash_slabs, hash_blocks = launches
        handle, values = stream.cuda_stream, self._values_at
        hash_slabs(self._count_slabs(length), handle, buffer.data_ptr(), length, values)
        hash_blocks(digests.shape[0], handle, values, length, digests.data_ptr())

    def _digest_by_triton(self, buffer: torch.Tensor, length: int, digests: torch.Tensor) -> None:
        kernels, slab_chunks, block_slabs = self._kernels, self._slab_chunks, self._block_slabs
        with self._on_device():
            kernels.hash_slabs[(self._count_slabs(length),)](
                buffer, length, self._values, slab_chunks, num_warps=_count_warps(slab_chunks), **kernels.OPTIONS
            )
            kernels.hash_blocks[(_count_digests(length),)](
                self._values, length, digests, block_slabs, num_warps=_count_warps(block_slabs), **kernels.OPTIONS
            )

    def _count_slabs(self, length: int) -> int:
        return max(1, -(-length // (self._slab_chunks * _CHUNK_BYTES)))

    def _on_device(self) -> AbstractContextManager[object]:
        """Triton launches on torch's current device, which need not be the buffer's."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()

    def _check_buffer(self, buffer: torch.Tensor, length: int) -> None:
        if not 0 <= length <= self._buffer_bytes:
            raise UsageError(f"{length} bytes to digest in a buffer of {self._buffer_bytes}")
        if -(-length // _MESSAGE_BYTES) * _MESSAGE_BYTES > buffer.numel():
            raise UsageError(
                f"{length} bytes to digest in a buffer of {buffer.numel()}", "it must reach to a multiple of 64 bytes"
            )
        if buffer.dtype != torch.uint8 or not _is_plain(buffer, self._device):
            raise UsageError(f"bytes on {self._device}, contiguous and aligned to 16, can be digested")


def _find_launches(device: torch.device) -> Launches | None:
    """Those of the kernels that are brought along; None: this device does not take them, so Triton must compile."""
    is_current = device == torch.device("cuda")
    if device.type != "cuda" or (is_current and not torch.cuda.is_available()):
        return None
    try:
        ordinal = torch.cuda.current_device() if is_current else device.index
        return KernelLaunch(HASH_SLABS, ordinal), KernelLaunch(HASH_BLOCKS, ordinal)
    except UnsupportedError as exc:
        _log.debug("the kernels that are brought along do not serve %s: %s", device, exc)
        return None


def warm_up(device: torch.device) -> Future[None]:
    """Compile for ``device`` beside the load, and prove the kernels on known bytes.

    Returns:
        A future that is done when blocks can be digested there; or fails with `UnsupportedError` that says why not. Its
        thread is no daemon: the interpreter's end waits for a compilation, which could not be cut off safely.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fastload-gpu-digest")
    try:
        return executor.submit(_prove, device)
    except RuntimeError as exc:  # the system, or a Python that is about to end, lets this process start no thread
        refused: Future[None] = Future()
        refused.set_exception(UnsupportedError(f"no block digests on {device}: {exc}"))
        return refused
    finally:
        executor.shutdown(wait=False)


def _prove(device: torch.device) -> None:
    """Raise `UnsupportedError` unless the kernels find what the CPU finds."""
    pattern = bytes(range(251))  # as in BLAKE3's own test vectors
    content = (pattern * (_PROBE_BYTES // len(pattern) + 1))[:_PROBE_BYTES]
    expected = block_digest(content)
    try:
        (found,) = _digest_alone(device, content)
    except UnsupportedError:
        raise
    except Exception as exc:
        # What a compiler, a linker, a driver may raise has no common base, and none of it may end a load that the CPU
        # can prove as well.
        raise _refusal(device, exc) from exc
    if found != expected:
        raise UnsupportedError(f"no block digests on {device}: its kernels find {found} where {expected} is right")


def _digest_alone(device: torch.device, content: bytes) -> list[str]:
    """The digests of ``content``, on a stream that no load waits for."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    with torch.cuda.stream(stream):  # None: no stream
        digester = BlockDigester(device, len(content))
        room_bytes = -(-len(content) // _MESSAGE_BYTES) * _MESSAGE_BYTES
        buffer = torch.full((room_bytes,), 0xFF, dtype=torch.uint8, device="cpu")
        buffer[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return to_hex(digester.digest(buffer.to(device), len(content)))


def _refusal(device: torch.device, exc: BaseException) -> UnsupportedError:
    while exc.__cause__ is not None:  # Triton wraps what went wrong in the source around it
        exc = exc.__cause__
    reason = (str(exc).splitlines() or [""])[0]
    return UnsupportedError(
        f"no block digests on {device}: {type(exc).__name__}: {reason}",
        "Triton needs a C compiler with Python's headers, and a folder that it may write to (TRITON_CACHE_DIR)",
    )


def _load_kernels(device: torch.device) -> Any:
    """The module of the kernels, which imports Triton.

    Raises:
        UnsupportedError: there is no Triton, or it does not run on this kind of device.
    """
    try:
        from fastload._place import gpu_digest_kernel  # noqa: PLC0415 - Triton is large, and not everywhere
    except ImportError as exc:
        raise UnsupportedError(
            f"no block digests on {device}: {exc}", "Install triton 3.4 or later, the one that torch for CUDA names"
        ) from exc
    expected = "cpu" if gpu_digest_kernel.IS_INTERPRETED else "cuda"
    if device.type != expected:
        interpreted = " (TRITON_INTERPRET is set)" if gpu_digest_kernel.IS_INTERPRETED else ""
        raise UnsupportedError(f"no block digests on {device}: Triton runs on {expected} here{interpreted}")
    return gpu_digest_kernel


def _is_plain(tensor: torch.Tensor, device: torch.device) -> bool:
    is_here = tensor.device == device and tensor.dim() == 1
    return is_here and tensor.is_contiguous() and tensor.data_ptr() % _ALIGNMENT_BYTES == 0


def _count_digests(length: int) -> int:
    return max(1, count_blocks(length))


def _count_warps(lanes: int) -> int:
    """One thread per lane, up to eight warps."""
    return max(1, min(8, lanes // 32))
