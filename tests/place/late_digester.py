"""Digests of the pretended device."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from blake3 import blake3

from fastload._verify.digest import BLOCK_BYTES
from pretended_cuda import alias, range_of

if TYPE_CHECKING:
    from pretended_cuda import Machine


class LateDigester:
    """Digests when its turn on the stream comes, as a kernel does; ``lies`` are what it finds wrong for good."""

    def __init__(self, machine: Machine, slot_bytes: int, *, lies: bool = False) -> None:
        self._machine = machine
        self._lies = lies
        self._out = torch.zeros(slot_bytes // BLOCK_BYTES, 8, dtype=torch.int32)

    def digest_on(self, stream: Any, buffer: torch.Tensor, length: int) -> torch.Tensor:
        out = self._out[: -(-length // BLOCK_BYTES)]
        of, to = range_of(buffer[:length]), range_of(out)

        def run() -> None:
            content = alias(of).numpy().tobytes()
            found = b"".join(
                blake3(content[at : at + BLOCK_BYTES]).digest() for at in range(0, len(content), BLOCK_BYTES)
            )
            ctypes.memmove(to.begin, bytes(len(found)) if self._lies else found, len(found))

        stream.submit(run, of, to)
        return out
