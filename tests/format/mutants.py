"""Files that are almost valid: the mutation engine of the differential test and of ``benchmarks/fuzz_header.py``.

It lies beside the test, not in ``benchmarks/``: the source distribution carries the tests and not the benchmarks. Many
mutations keep a file valid (spaces, escapes, order, dimensions of 1, tensors without elements), since a reader that
refused everything would pass otherwise. They work on tokens, so that what they break is not merely the syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._format.dtype import DTYPES
from writing import entry, pack, shard_bytes

if TYPE_CHECKING:
    from random import Random

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|[\[\]{},:]|\s+|.', re.DOTALL)
_NEST = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_DIGITS = b"0123456789"
_DTYPES = [b'"%b"' % name.encode() for name in DTYPES]
_ODD_DTYPES = b'"f32" "F128" "" {"F32":null} {"U8":null} 0 null ["F32"]'.split()
_COUNTS = b"0 1 2 4 8 16 9223372036854775808 18446744073709551615 18446744073709551616".split()
_ODD_NUMBERS = (b"9" * 400, b"9" * 4300, *b'-1 -0 1.0 1e0 4E+0 01 +1 0x1 1_0 .5 1. true null "4" [4]'.split())
_SPACES = (b" ", b"\t", b"\n", b"\r", b" \r\n", b" " * 8, b" " * 4096)
_ODD_SPACES = (b"\x0b", b"\0", b"\xc2\xa0", b"\xef\xbb\xbf", b"\xe2\x80\xa8", *b'/**/ , } {} "'.split())
_BROKEN_TEXT = (b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xe2\x82", b"\n", b"\0", b"\x1f")
_ESCAPES = (b"\x7f", b"\xc3\xa9", *rb"\n \/ \u0061 \ud83d\ude00 \uD800 \udc00x \x41 \u12g4".split())
_METADATA = b'null {} {"k":"v"} {"k":1} {"k":"v","k":"w"} {"k":null} [] "x"'.split()
_VALUES = b'0 -1.5e3 true null "x" [1,[2]] {"y":1} {"y":1,"y":2} 1e999 9e307 -1e308 NaN'.split()


@dataclass
class Mutant:
    """A file under mutation: its JSON in tokens, its data, and by how much the length before them is wrong."""

    tokens: list[bytes]
    data: bytes
    length_error: int = 0

    def to_bytes(self) -> bytes:
        """The file."""
        spelled = b"".join(self.tokens)
        return shard_bytes(spelled, self.data, length=(len(spelled) + self.length_error) % (1 << 64))

    def find(self, rng: Random, starts: bytes) -> int:
        """The place of one of the tokens that begin with one of the bytes ``starts``, else the first."""
        return rng.choice([place for place, token in enumerate(self.tokens) if token[0] in starts] or [0])

    def find_pair(self, rng: Random, starts: bytes = b'"{[0123456789') -> tuple[int, int]:
        """Where one ``key: value``, with a value that starts so, begins and ends."""
        colons = [i for i, t in enumerate(self.tokens[:-1]) if t == b":" and i and self.tokens[i + 1][0] in starts]
        colon = rng.choice(colons or [1])
        return colon - 1, self.end_of(colon + 1)

    def end_of(self, place: int) -> int:
        """Where the value that begins at ``place`` ends."""
        depth = 0
        for end in range(place, len(self.tokens)):
            depth += _NEST.get(self.tokens[end], 0)
            if depth <= 0:
                return end + 1
        return len(self.tokens)

    def add_first(self, place: int, *tokens: bytes) -> None:
        """Put an item before those of the object or array that opens at ``place``."""
        closing = self.tokens[place + 1 : place + 2] in ([b"}"], [b"]"])
        self.tokens[place + 1 : place + 1] = tokens if closing else (*tokens, b",")

    def top(self) -> int:
        """Where the document opens."""
        return self.tokens.index(b"{") if b"{" in self.tokens else 0


def _seeds() -> list[bytes]:
    """Small valid files that differ in what they use of the format."""
    one = {"a": ("U8", [4], b"0123")}
    layers = {f"layers.{i}.weight": ("BF16", [2, 3], bytes(range(12))) for i in range(5)}
    packed = {
        "4": ("F4", [4], b"ab"),
        "6": ("F6_E2M3", [4], b"abc"),
        "8": ("F8_E8M0", [], b"a"),
        "c": ("C64", [1], b"8" * 8),
    }
    names = {"": ("BOOL", [1, 1], b"\1"), "n\n\x1b[31m\0": ("I8", [2], b"ab"), "\U0001f600": ("U16", [1], b"ab")}
    tensors = {"b": entry("I64", [], 8, 16), "none": entry("F16", [3, 0], 8, 8), "a": entry("F32", [2], 0, 8)}
    field = b' {"a":{"shape":[1],"x":{"y":[1,-2.5,null]},"data_offsets":[0,1],"dtype":"U8"}, "__metadata__":null}\n\t '
    backwards = shard_bytes({"__metadata__": {"k": "v"}, **tensors}, bytes(16))
    return [*map(pack, (one, layers, packed, names)), backwards, shard_bytes(field, b"x"), shard_bytes({})]


_CORPUS = [
    (_TOKEN.findall(seed[8:start]), seed[start:]) for seed in _seeds() for start in [8 + seed[0] + 256 * seed[1]]
]


def _break_bytes(m: Mutant, rng: Random) -> None:
    other = rng.choice(_CORPUS)[0]
    here, there = rng.randrange(len(m.tokens)), rng.randrange(len(other))
    token = bytearray(m.tokens[here])
    token[rng.randrange(len(token))] ^= 1 << rng.randrange(8)
    cut = [[bytes(token)], other[there : there + rng.randrange(8)], [b" "]]
    ends = [here + 1, here + rng.randrange(8), len(m.tokens)]
    kind = rng.randrange(3)  # flip a bit, splice, cut off
    m.tokens[here : ends[kind]] = cut[kind]


def _break_file(m: Mutant, rng: Random) -> None:
    if rng.random() < 0.5:
        m.length_error = rng.choice((-8, -1, 1, 8, len(m.data), 100_000_001, -(1 << 62), 1 << 63))
    else:
        m.data = rng.choice((m.data[:-1], m.data[: len(m.data) // 2], m.data + b"\0", m.data * 2, m.data[::-1]))


def _change_number(m: Mutant, rng: Random) -> None:
    place = m.find(rng, _DIGITS)
    near = b"%d" % (int(m.tokens[place]) + 1) if m.tokens[place].isdigit() and len(m.tokens[place]) < 20 else b"3"
    m.tokens[place] = rng.choice((near, rng.choice(_COUNTS), rng.choice(_ODD_NUMBERS)))


def _swap(m: Mutant, rng: Random) -> None:
    """Two numbers, or the first two items of an array: dimensions or, so that the end comes first, offsets."""
    a, b = m.find(rng, _DIGITS), m.find(rng, _DIGITS)
    first = m.find(rng, b"[") + 1
    if rng.random() < 0.5 and m.tokens[first + 1 : first + 2] == [b","]:
        a, b = first, min(first + 2, len(m.tokens) - 1)
    m.tokens[a], m.tokens[b] = m.tokens[b], m.tokens[a]


def _change_pair(m: Mutant, rng: Random) -> None:
    """Repeat one (as it is, with its key spelled otherwise, under another name), bring it to the front, or drop it."""
    begin, end = m.find_pair(rng, rng.choice((b"{", b'"[{')))
    key, *value = m.tokens[begin:end] or [b'"k"', b":", b"0"]
    respelled = b'"\\u%04x' % key[1] + key[2:] if key[1:2].isalnum() else key
    kind = rng.randrange(6)
    if kind < 3:
        m.add_first(max(begin - 1, 0), (key, respelled, b'"k"')[kind], *value)
        return
    del m.tokens[begin : end + (m.tokens[end : end + 1] == [b","])]
    if kind < 5:
        m.add_first(m.top(), key, *value)


def _change_dtype(m: Mutant, rng: Random) -> None:
    places = [place for place, token in enumerate(m.tokens) if token in _DTYPES]
    for place in places and [rng.choice(places)]:
        bits = DTYPES[m.tokens[place][1:-1].decode()].bits
        same = [dtype for dtype in _DTYPES if DTYPES[dtype[1:-1].decode()].bits == bits]
        m.tokens[place] = rng.choice(rng.choice((same, _DTYPES, _ODD_DTYPES)))


def _pad(m: Mutant, rng: Random) -> None:
    space = rng.choice(rng.choice((_SPACES, _SPACES, _SPACES, _ODD_SPACES)))
    m.tokens.insert(rng.choice((0, len(m.tokens), rng.randrange(len(m.tokens)))), space)


def _change_text(m: Mutant, rng: Random) -> None:
    place = m.find(rng, b'"')
    token, added = m.tokens[place], rng.choice(rng.choice((_BROKEN_TEXT, _ESCAPES)))
    respelled = b'"\\u%04X' % token[1] + token[2:] if token[1:2].isalnum() else b'"' + token[1:]
    m.tokens[place] = rng.choice((respelled, token[:1] + added + token[1:]))


def _add_field(m: Mutant, rng: Random) -> None:
    opening, closing = rng.choice(((b"[", b"]"), (b'{"y":', b"}")))
    depth = rng.choice((1, 3, 100, 124, 125, 126, 127, 200, 5000))
    value = rng.choice((opening * depth + b"0" + closing * depth, rng.choice(_VALUES), rng.choice(_COUNTS + _VALUES)))
    m.add_first(m.find(rng, b"{"), b'"x"', b":", value)


def _add_first(m: Mutant, rng: Random) -> None:
    """Metadata, or a tensor without elements (in which a product may overflow all the same)."""
    at = rng.choice((0, len(m.data), rng.randrange(len(m.data) + 1)))
    shape = rng.choice((b"[0]", b"[0,3]", b"[0,%d,4]" % (1 << 63), b"[%d,4,0]" % (1 << 63), b"[]"))
    spelled = b'"z%d":{"dtype":"F4","shape":%b,"data_offsets":[%d,%d]}' % (rng.randrange(3), shape, at, at)
    m.add_first(m.top(), *_TOKEN.findall(rng.choice((spelled, spelled, b'"__metadata__":' + rng.choice(_METADATA)))))


def _add_ones(m: Mutant, rng: Random) -> None:
    m.add_first(m.find(rng, b"["), b"1", *[b",", b"1"] * rng.choice((0, 1, 8, 60, 62, 63, 64, 500)))


def _make_array(m: Mutant, rng: Random) -> None:
    """Of an entry: its fields in the order in which the reference takes them from an array."""
    begin, end = m.find_pair(rng, b"{")
    colons = [i for i in range(begin + 2, end) if m.tokens[i] == b":"]
    fields = {m.tokens[i - 1]: b"".join(m.tokens[i + 1 : m.end_of(i + 1)]) for i in colons}
    wanted = (b'"dtype"', b'"shape"', b'"data_offsets"')
    if fields.keys() >= set(wanted):
        m.tokens[begin + 2 : end] = [b"[", b",".join(fields[key] for key in wanted), b"]"]


_MUTATIONS = (
    *(_break_bytes, _break_file, _change_number, _change_number, _swap, _change_pair, _change_pair, _change_dtype),
    *(_pad, _change_text, _add_field, _add_first, _add_first, _add_ones, _make_array),
)


def mutate(rng: Random) -> bytes:
    """One mutant: a seed after one to three mutations."""
    tokens, data = rng.choice(_CORPUS)
    mutant = Mutant(list(tokens), data)
    for mutation in rng.choices(_MUTATIONS, k=rng.choice((1, 1, 1, 2, 2, 3))):
        mutation(mutant, rng)
        mutant.tokens = mutant.tokens or [b" "]  # there must be something to mutate
    return mutant.to_bytes()
