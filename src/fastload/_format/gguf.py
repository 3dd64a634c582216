"""How long a GGUF file must be, by its own header.

fastload does not load GGUF; it brings it where it is asked to, and a file that was cut must not pass for whole. The
answer is a lower bound: of a type that is not known here, a tensor counts as one byte.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct

MAGIC = b"GGUF"
GGUF_SUFFIX = ".gguf"
_VERSIONS = {2, 3}
"""Version 1 counts in 32 bits, and is no longer made."""
_ALIGNMENT_KEY = b"general.alignment"
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 8
_STRING, _ARRAY = 8, 9
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Of each type of metadata whose size is fixed."""
_TENSOR_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip
"""Elements and bytes of a block: F32, F16, Q4_0 … Q8_1, Q2_K … Q8_K, I8 … I64, F64, BF16."""


class CutError(Exception):
    """The bytes end before the header does."""


def measure_gguf(start: bytes) -> int | None:
    """The fewest bytes that a file which begins so can have; None where it is no GGUF file of a known version.

    Raises:
        CutError: more of it is needed to tell.
    """
    cursor = _Cursor(start)
    if cursor.take(len(MAGIC)) != MAGIC or cursor.number("<I") not in _VERSIONS:
        return None
    tensor_count, value_count = cursor.number("<Q"), cursor.number("<Q")
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(value_count):
        key, kind = cursor.text(), cursor.number("<I")
        if key == _ALIGNMENT_KEY and _VALUE_BYTES.get(kind) == 4:  # noqa: PLR2004 - a 32-bit number
            alignment = cursor.number("<I") or _DEFAULT_ALIGNMENT
        elif not _skip_value(cursor, kind):
            return None
    data_bytes = 0
    for _ in range(tensor_count):
        end = _tensor_end(cursor)
        if end is None:
            return None
        data_bytes = max(data_bytes, end)
    padding = -cursor.offset % alignment if data_bytes else 0
    return cursor.offset + padding + data_bytes


class _Cursor:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.offset = 0

    def skip(self, nbytes: int) -> None:
        if self.offset + nbytes > len(self._content):
            raise CutError
        self.offset += nbytes

    def take(self, nbytes: int) -> bytes:
        at = self.offset
        self.skip(nbytes)
        return self._content[at : self.offset]

    def number(self, spelling: str) -> int:
        (value,) = struct.unpack(spelling, self.take(struct.calcsize(spelling)))
        return int(value)

    def text(self) -> bytes:
        return self.take(self.number("<Q"))


def _skip_value(cursor: _Cursor, kind: int) -> bool:
    """False where the value is of a type that is not known, or an array of arrays, which nobody writes."""
    if kind == _STRING:
        cursor.skip(cursor.number("<Q"))
        return True
    if kind != _ARRAY:
        cursor.skip(_VALUE_BYTES.get(kind, 0))
        return kind in _VALUE_BYTES
    kind, count = cursor.number("<I"), cursor.number("<Q")
    if kind == _STRING:
        for _ in range(count):
            cursor.skip(cursor.number("<Q"))
        return True
    cursor.skip(count * _VALUE_BYTES.get(kind, 0))
    return kind in _VALUE_BYTES


def _tensor_end(cursor: _Cursor) -> int | None:
    """The end of the next tensor, from the beginning of the data; None where it cannot be one."""
    cursor.text()
    dimensions = cursor.number("<I")
    if dimensions > _MAX_DIMENSIONS:
        return None
    elements = 1
    for _ in range(dimensions):
        elements *= cursor.number("<Q")
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    if kind not in _TENSOR_BLOCKS:
        return offset + min(elements, 1)
    block_elements, block_bytes = _TENSOR_BLOCKS[kind]
    return offset + elements // block_elements * block_bytes
