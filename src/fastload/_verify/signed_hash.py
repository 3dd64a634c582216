"""Comparing a file with what was signed of it, while its bytes pass in order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from blake3 import blake3

from fastload._verify.difference import Difference
from fastload._verify.statement import ShardedFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fastload._verify.statement import SignedFile

_HASHERS: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b, "blake3": blake3}


class SignedHash:
    """The digests of one file: of its shards, each by itself, or of the whole."""

    def __init__(self, signed: SignedFile) -> None:
        self._algorithm = signed.algorithm
        self._expected = (
            [shard.digest for shard in signed.shards] if isinstance(signed, ShardedFile) else [signed.digest]
        )
        self._ends = [shard.end for shard in signed.shards] if isinstance(signed, ShardedFile) else [None]
        self._hasher = _HASHERS[signed.algorithm]()
        self._number = 0
        self._offset = 0
        self._wrong: Difference | None = None

    def update(self, content: memoryview) -> None:
        """The next bytes of the file."""
        while len(content) and self._wrong is None:
            if self._number == len(self._ends):
                self._wrong = Difference(f"more than {self._offset:,} bytes", f"{self._offset:,}, which were signed")
                return
            end = self._ends[self._number]
            piece = content if end is None else content[: end - self._offset]
            self._hasher.update(piece)
            self._offset += len(piece)
            content = content[len(piece) :]
            if self._offset == end:
                self._finish_shard()

    def _finish_shard(self) -> None:
        self._wrong = self._wrong or self._compare()
        self._number += 1
        self._hasher = _HASHERS[self._algorithm]()

    def _compare(self) -> Difference | None:
        expected, found = self._expected[self._number], self._hasher.hexdigest()
        if found == expected:
            return None
        what = "" if self._ends[self._number] is None else f" of the shard that ends at byte {self._offset:,}"
        return Difference(f"{self._algorithm} {found}{what}", expected)

    def find_difference(self) -> Difference | None:
        """After the last byte of the file; None: it is what was signed."""
        if self._wrong is not None or self._number == len(self._ends):
            return self._wrong
        if self._ends[-1] is None:
            return self._compare()
        return Difference(f"{self._offset:,} bytes", f"{self._ends[-1]:,}, which were signed")
