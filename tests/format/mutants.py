"""Files that are almost valid: the mutation engine of the differential test and of ``benchmarks/fuzz_header.py``.

It lies beside the test, not in ``benchmarks/``, because the source distribution carries the tests and not the benchmarks.
Many mutations keep a file valid (spaces, escapes, order, dimensions of 1, tensors without elements): a reader that refused
everything would otherwise pass. All work on tokens, so that what they break is not merely the syntax.
"""
# ruff: noqa: S311 - chance that can be repeated is the point

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from writing import entry, pack, shard_bytes

from fastload._format.dtype import DTYPES

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|[\[\]{},:]|\s+|.', re.DOTALL)
_NEST = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_DTYPES = [b'"%b"' % name.encode() for name in DTYPES]
_ODD_DTYPES = (b'"f32"', b'"F128"', b'""', b'"F32 "', b'{"F32":null}', b'{"U8":null}', b"0", b"null", b'["F32"]')
_COUNTS = (b"0", b"1", b"2", b"4", b"8", b"16", *(b"%d" % n for n in (1 << 63, (1 << 64) - 1, 1 << 64)), b"9" * 400, b"9" * 4300)
_ODD_NUMBERS = (b"-1", b"-0", b"1.0", b"1e0", b"4E+0", b"01", b"+1", b"0x1", b"1_0", b".5", b"1.", b"true", b"null", b'"4"', b"[4]")
_SPACES = (b" ", b"\t", b"\n", b"\r", b" \r\n", b" " * 8, b" " * 4096)
_ODD_SPACES = (b"\x0b", b"\0", b"\xc2\xa0", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"/**/", b",", b"}", b"{}", b'"')
_BROKEN_TEXT = (b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xe2\x82", b"\n", b"\0", b"\x1f")
_ESCAPES = (b"\\n", b"\\/", b"\\u0061", b"\\ud83d\\ude00", b"\x7f", b"\xc3\xa9", b"\\uD800", b"\\udc00x", b"\\x41", b"\\u12g4")
_METADATA = (b"null", b"{}", b'{"k":"v"}', b'{"k":1}', b'{"k":"v","k":"w"}', b'{"k":null}', b"[]", b'"x"')
_VALUES = (b"0", b"-1.5e3", b"true", b"null", b'"x"', b"[1,[2]]", b'{"y":1}', b'{"y":1,"y":2}', b"1e999", b"9e307", b"-1e308", b"NaN")


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
        """The place of one of the tokens that begin with one of the bytes ``starts``; the first token if there is none."""
        return rng.choice([place for place, token in enumerate(self.tokens) if token[0] in starts] or [0])

    def find_pair(self, rng: Random, value: bytes = b'"{[0123456789') -> tuple[int, int]:
        """Where one ``key: value``, with a value that begins so, begins and ends."""
        colons = [i for i, t in enumerate(self.tokens[:-1]) if t == b":" and i and self.tokens[i + 1][0] in value]
        if not colons:
            return 0, len(self.tokens)
        colon = rng.choice(colons)
        return colon - 1, self.end_of(colon + 1)

    def end_of(self, place: int) -> int:
        """Where the value that begins at ``place`` ends."""
        depth = 0
        for end in range(place, len(self.tokens)):
            depth += _NEST.get(self.tokens[end], 0)
            if depth <= 0:
                return end + 1
        return len(self.tokens)


def _seeds() -> list[bytes]:
    """Small valid files that differ in what they use of the format."""
    tied = {"a": entry("F32", [2], 0, 8), "empty": entry("F16", [3, 0], 8, 8), "b": entry("I64", [], 8, 16)}
    layers = {f"layers.{i}.weight": ("BF16", [2, 3], bytes(range(12))) for i in range(5)}
    packed = {"4": ("F4", [4], b"ab"), "6": ("F6_E2M3", [4], b"abc"), "8": ("F8_E8M0", [], b"a"), "c": ("C64", [1], bytes(8))}
    names = {"": ("BOOL", [1, 1], b"\1"), "n\n\x1b[31m\0": ("I8", [2], b"ab"), "\U0001f600": ("U16", [1], b"ab")}
    odd = b' {"a":{"shape":[1],"x":{"y":[1,-2.5,null,true,"z"]},"data_offsets":[0,1],"dtype":"U8"}, "__metadata__":null}\n\t '
    backwards = shard_bytes({"__metadata__": {"k": "v"}, **dict(reversed(tied.items()))}, bytes(16))
    return [*map(pack, ({"a": ("U8", [4], b"0123")}, layers, packed, names)), backwards, shard_bytes(odd, b"x"), shard_bytes({})]


def _cut(file: bytes) -> tuple[list[bytes], bytes]:
    data_start = 8 + int.from_bytes(file[:8], "little")
    return _TOKEN.findall(file[8:data_start]), file[data_start:]


_CORPUS = [_cut(seed) for seed in _seeds()]


def _flip_bit(m: Mutant, rng: Random) -> None:
    place = rng.randrange(len(m.tokens))
    token = bytearray(m.tokens[place])
    token[rng.randrange(len(token))] ^= 1 << rng.randrange(8)
    m.tokens[place] = bytes(token)


def _splice(m: Mutant, rng: Random) -> None:
    other = rng.choice(_CORPUS)[0]
    here, there = rng.randrange(len(m.tokens)), rng.randrange(len(other))
    m.tokens[here : here + rng.randrange(8)] = other[there : there + rng.randrange(8)]


def _tweak_count(m: Mutant, rng: Random) -> None:
    place = m.find(rng, b"0123456789")
    near = m.tokens[place].isdigit() and len(m.tokens[place]) < 19 and rng.random() < 0.5  # noqa: PLR2004 - fits in u64
    m.tokens[place] = b"%d" % max(0, int(m.tokens[place]) + rng.choice((-1, 1))) if near else rng.choice(_COUNTS)


def _odd_number(m: Mutant, rng: Random) -> None:
    m.tokens[m.find(rng, b"0123456789")] = rng.choice(_ODD_NUMBERS)


def _swap_numbers(m: Mutant, rng: Random) -> None:
    a, b = m.find(rng, b"0123456789"), m.find(rng, b"0123456789")
    m.tokens[a], m.tokens[b] = m.tokens[b], m.tokens[a]


def _swap_dimensions(m: Mutant, rng: Random) -> None:
    """Often harmless, and where the two are offsets, the end comes before the begin."""
    a = m.find(rng, b"[")
    inside = m.tokens[a + 1 : a + 4]
    if len(inside) == 3 and inside[1] == b",":  # noqa: PLR2004 - two items and the comma
        m.tokens[a + 1 : a + 4] = inside[::-1]


def _repeat_pair(m: Mutant, rng: Random) -> None:
    begin, end = m.find_pair(rng)
    pair = m.tokens[begin:end]
    if rng.random() < 0.5 and len(pair[0]) > 2 and pair[0][1:2].isalnum():  # noqa: PLR2004 - not ""
        pair[0] = b'"\\u%04x' % pair[0][1] + pair[0][2:]
    if rng.random() < 0.3:  # noqa: PLR2004 - another name, another range: no duplicate after all
        pair[0] = b'"other"'
    m.tokens[begin:begin] = [*pair, b","]


def _move_pair(m: Mutant, rng: Random) -> None:
    """To the front of the document, where an entry is at home and a field is not."""
    begin, end = m.find_pair(rng, rng.choice((b"{", b"{", b"[")))
    pair = m.tokens[begin:end]
    if end < len(m.tokens) and m.tokens[end] == b"," and m.tokens[0] == b"{":
        del m.tokens[begin : end + 1]
        m.tokens[1:1] = [*pair, b","]


def _drop_pair(m: Mutant, rng: Random) -> None:
    begin, end = m.find_pair(rng)
    comma = end < len(m.tokens) and m.tokens[end] == b","
    del m.tokens[begin : end + comma]


def _change_dtype(m: Mutant, rng: Random) -> None:
    places = [place for place, token in enumerate(m.tokens) if token in _DTYPES]
    if places:
        place = rng.choice(places)
        same = [d for d in _DTYPES if DTYPES[d[1:-1].decode()].bits == DTYPES[m.tokens[place][1:-1].decode()].bits]
        m.tokens[place] = rng.choice(rng.choice((same, _DTYPES, _ODD_DTYPES)))


def _pad(m: Mutant, rng: Random) -> None:
    m.tokens.insert(rng.choice((0, len(m.tokens), rng.randrange(len(m.tokens) + 1))), rng.choice(_SPACES))


def _pad_oddly(m: Mutant, rng: Random) -> None:
    m.tokens.insert(rng.choice((0, len(m.tokens), rng.randrange(len(m.tokens) + 1))), rng.choice(_ODD_SPACES))


def _break_text(m: Mutant, rng: Random) -> None:
    place = m.find(rng, b'"')
    m.tokens[place] = m.tokens[place][:1] + rng.choice(_BROKEN_TEXT) + m.tokens[place][1:]


def _escape(m: Mutant, rng: Random) -> None:
    place = m.find(rng, b'"')
    token = m.tokens[place]
    if rng.random() < 0.5 and token[1:2].isalnum():  # the same text, spelled otherwise
        m.tokens[place] = b'"\\u%04X' % token[1] + token[2:]
    else:
        m.tokens[place] = token[:1] + rng.choice(_ESCAPES) + token[1:]


def _add_field(m: Mutant, rng: Random) -> None:
    """Into an entry, as a rule; a value that no parser may look at, or one that no parser may take."""
    place = m.find(rng, b"{") + 1
    depth = rng.choice((1, 3, 100, 124, 125, 126, 127, 200, 5000))
    nested = rng.choice(((b"[", b"]"), (b'{"y":', b"}")))
    value = nested[0] * depth + b"0" + nested[1] * depth if rng.random() < 0.3 else rng.choice((*_VALUES, *_COUNTS, *_ODD_NUMBERS))  # noqa: PLR2004
    m.tokens[place:place] = [b'"x"', b":", value, *([b","] if m.tokens[place : place + 1] != [b"}"] else [])]


def _set_metadata(m: Mutant, rng: Random) -> None:
    comma = [] if m.tokens[1:2] == [b"}"] else [b","]
    m.tokens[1:1] = [b'"__metadata__"', b":", rng.choice(_METADATA), *comma]


def _add_ones(m: Mutant, rng: Random) -> None:
    place = m.find(rng, b"[") + 1
    ones = [b"1", b","] * rng.choice((1, 2, 8, 60, 63, 64, 65, 500))
    m.tokens[place:place] = ones[:-1] if m.tokens[place : place + 1] == [b"]"] else ones


def _add_empty_tensor(m: Mutant, rng: Random) -> None:
    at = rng.choice((0, len(m.data), rng.randrange(len(m.data) + 1)))
    shape = rng.choice((b"[0]", b"[0,3]", b"[0,%d,4]" % (1 << 63), b"[%d,4,0]" % (1 << 63), b"[]"))
    spelled = b'"z%d":{"dtype":"F4","shape":%b,"data_offsets":[%d,%d]}' % (rng.randrange(3), shape, at, at)
    m.tokens[1:1] = [*_TOKEN.findall(spelled), *([] if m.tokens[1:2] == [b"}"] else [b","])]


def _entry_as_array(m: Mutant, rng: Random) -> None:
    begin, end = m.find_pair(rng, b"{")
    keys = {m.tokens[i]: i for i in range(begin + 2, end - 1) if m.tokens[i + 1] == b":"}
    wanted = [keys.get(key, -1) for key in (b'"dtype"', b'"shape"', b'"data_offsets"')]
    if min(wanted) >= 0:
        dtype, shape, offsets = (m.tokens[at + 2 : m.end_of(at + 2)] for at in wanted)
        m.tokens[begin + 2 : end] = [b"[", *dtype, b",", *shape, b",", *offsets, b"]"]


def _change_data(m: Mutant, rng: Random) -> None:
    m.data = rng.choice((m.data[:-1], m.data[: len(m.data) // 2], m.data + b"\0", m.data * 2, m.data[::-1]))


def _change_length(m: Mutant, rng: Random) -> None:
    m.length_error = rng.choice((-8, -1, 1, 8, len(m.data), 100_000_001, -(1 << 62), 1 << 63))


def _truncate_header(m: Mutant, rng: Random) -> None:
    del m.tokens[rng.randrange(len(m.tokens)) :]
    m.tokens.append(b" ")


Mutation = Callable[[Mutant, Random], None]
_SYNTAX: tuple[Mutation, ...] = (
    *(_flip_bit, _splice, _odd_number, _pad_oddly, _break_text, _set_metadata, _change_length, _truncate_header, _drop_pair),
)
_STRUCTURE: tuple[Mutation, ...] = (
    *(_tweak_count, _swap_numbers, _swap_dimensions, _repeat_pair, _move_pair, _change_dtype, _pad, _escape, _add_field),
    *(_add_ones, _add_empty_tensor, _entry_as_array, _change_data),
)
_MUTATIONS = _SYNTAX + 2 * _STRUCTURE


def mutate(rng: Random) -> bytes:
    """One mutant: a seed after one to three mutations."""
    tokens, data = rng.choice(_CORPUS)
    mutant = Mutant(list(tokens), data)
    for mutation in rng.choices(_MUTATIONS, k=rng.choice((1, 1, 1, 2, 2, 3))):
        mutation(mutant, rng)
        mutant.tokens = mutant.tokens or [b" "]  # there must be something to mutate
    return mutant.to_bytes()
