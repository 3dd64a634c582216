"""How many values JSON has, roughly, before it is parsed: each becomes an object of up to a hundred bytes and more.

Told by its commas and opening brackets, which are counted in a hundredth of the time that parsing takes.
"""

from __future__ import annotations

from typing import NamedTuple

_PIECE_BYTES = 64 << 10  # 64 KiB
_MARKS = b",[{"
_SPARE_VALUES = 10_000
"""So many more may be in a small document of another version, or a damaged one, so that it is told what it is."""


class Density(NamedTuple):
    """How many values documents of one kind hold for their length, at most."""

    value_bytes: int
    """They have so many bytes at least for each comma and opening bracket."""
    object_bytes: int
    """And for each object."""


def find_excess(raw: bytes | bytearray, density: Density) -> int | None:
    """How many values, or objects, ``raw`` should have at most and has not; None where it holds to ``density``."""
    for marks, each_bytes in ((_MARKS, density.value_bytes), (b"{", density.object_bytes)):
        most = len(raw) // each_bytes + _SPARE_VALUES
        if has_more_values(raw, most, marks):
            return most
    return None


def count_excess(text: bytes, mark: bytes, each: int) -> int:
    """How many values the start of ``text`` has, however much of it, beyond ``each`` for each ``mark`` there.

    Counted by pieces of 64 KiB, and in strings too. Of the start, since a parser begins there: what comes later makes
    up for nothing, and may never be reached.
    """
    excess = most = 0
    for at in range(0, len(text), _PIECE_BYTES):
        end = at + _PIECE_BYTES
        excess += sum(text.count(value, at, end) for value in _MARKS)
        excess -= each * text.count(mark, at, end + len(mark) - 1)
        most = max(most, excess)
    return most


def has_more_values(raw: bytes | bytearray, most: int, marks: bytes = _MARKS) -> bool:
    """True if ``raw`` has more than ``most`` commas and opening brackets, or other ``marks``, outside of strings."""
    return sum(map(raw.count, marks)) > most and len(outline_values(raw, marks)) > most


def outline_values(raw: bytes | bytearray, marks: bytes = _MARKS) -> bytes:
    """The commas and opening brackets of ``raw``, or other ``marks``, outside of its strings."""
    return outside_strings(raw, bytes(set(range(256)) - set(marks + b'"')))


def outside_strings(raw: bytes | bytearray, unwanted: bytes) -> bytes:
    """``raw`` without its strings and without the ``unwanted`` bytes, which quotes are not among."""
    quoted = raw.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, unwanted)
    found = bytearray()
    inside = 0
    for at in range(0, len(quoted), _PIECE_BYTES):  # each piece of the split is an object: not of all at once
        # A pair of quotes less: what was inside a string still is, and what was outside; so is every other part, then.
        parts = quoted[at : at + _PIECE_BYTES].replace(b'""', b"").split(b'"')
        found += b"".join(parts[inside::2])
        inside ^= (len(parts) - 1) & 1
    return bytes(found)
