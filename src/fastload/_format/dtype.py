"""The dtypes of safetensors 0.8, by the spelling of the file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dtype:
    """How one element is stored."""

    name: str
    """The spelling in the header, such as ``BF16``."""
    bits: int
    """Bits of one element; F4 and F6 are packed without padding."""
    alignment_bytes: int
    """What an element's address must be a multiple of; C64 is two F32, yet torch aligns it as one."""


_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

DTYPES: dict[str, Dtype] = {
    name: Dtype(name, bits, alignment_bytes=1 if bits % 8 else bits // 8) for name, bits in _BITS.items()
}

CASTABLE = frozenset({"F64", "F32", "F16", "BF16"})
"""What ``dtype=`` casts from and to."""

UNTOUCHED = frozenset({"I16", "I32", "I64", "U16", "U32", "U64", "BOOL", "C64"})
"""What ``dtype=`` leaves alone. All else may be quantised weights, whose values mean nothing without their scales."""
