"""Headers as large as wanted that are costly to read, or to refuse; for the test of 8 MB and the table of 100 MB."""

from __future__ import annotations

from itertools import chain, count, islice, product, repeat
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDS = {
    "valid": b'"z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "cut at the end": b'"z"',
    "unknown dtype at the end": b'"z":{"dtype":"X","shape":[0],"data_offsets":[0,0]}}',
    "hole at the end": b'"z":{"dtype":"U8","shape":[0],"data_offsets":[4000000001,4000000001]}}',
    "first name again at the end": b'"model.layers.0.mlp.experts.0.weight":{}}',
    "half a surrogate at the end": b'"\\ud800":{}}',
    "negative number at the end": b'"z":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}}',
    "nesting at the end": b'"z":{"x":' + b"[" * 900,
}


class Large(NamedTuple):
    """The JSON of a header, and how much data follows it."""

    raw: bytes
    data_bytes: int


def _ending(end: bytes) -> Callable[[int], Large]:
    def build(size: int) -> Large:
        count = size // 108
        lines = (
            f'"model.layers.{i // 9}.mlp.experts.{i % 9}.weight":'
            f'{{"dtype":"BF16","shape":[1,2],"data_offsets":[{i * 4},{i * 4 + 4}]}}'
            for i in range(count)
        )
        return Large(b"{" + ",".join(lines).encode() + b"," + end, count * 4)

    return build


def _filled(begin: bytes, unit: bytes, end: bytes) -> Callable[[int], Large]:
    return lambda size: Large(begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end, 0)


def _shuffled(size: int) -> Large:
    """Valid, yet in no order: each byte of the data is a tensor."""
    numbers = list(range(size // 68))
    Random(0).shuffle(numbers)  # noqa: S311 - an order, no secret
    lines = (f'"{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{i + 1}]}}' for i in numbers)
    return Large(b"{" + ",".join(lines).encode() + b"}", len(numbers))


def _all_at_once(entry: str) -> Callable[[int], Large]:
    """As many tensors as fit, each with a field that nobody knows, after one of each thing that asks for a closer look.

    A closer look at one kind of thing must not be one at everything.
    """

    def build(size: int) -> Large:
        begin = '{"\\ud83d\\ude00":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":[ -1]},'
        end = '"z":{"dtype":"U8","shape":[5],"data_offsets":[1,6]}}'
        count = (size - len(begin) - len(end)) // (len(entry.format(size)) + 1)
        return Large((begin + ",".join(entry.format(f"{i:08x}") for i in range(count)) + "," + end).encode(), 6)

    return build


def _to_the_brim(
    values: Callable[[], Iterator[bytes]], *, each: int, brackets: bytes, fields: int = 0
) -> Callable[[int], Large]:
    """Valid, with all of ``values`` that may be beside tensors, each of which counts as ``each``; then tensors.

    A letter beyond all others makes the parser hold each with four bytes.
    """

    def build(size: int) -> Large:
        left, opening, closing = values(), brackets[:-1], brackets[-1:]
        spare = b"".join(islice(left, _SPARE_VALUES // each))
        parts = [_FIELD.replace(b"a", _HIGHEST, 1), opening, spare, closing, b',"y":[0']
        for _ in range(_SPARE_OBJECTS // (1 + brackets.count(b"{"))):
            parts += [b',{"dtype":', opening, *islice(left, 12 // each), closing, b"}"]
        parts.append(b"]}")
        have = sum(map(len, parts))
        for number in count():
            others = b"".join(islice(left, fields))
            tensor = b',"%07d":{"dtype":"F4","shape":[0],"data_offsets":[0,0]%s}' % (number, others)
            have += len(tensor)
            if have >= size:
                break
            parts.append(tensor)
        return Large(b"".join(parts) + b"}", 0)

    return build


def _strings() -> Iterator[bytes]:
    """Of the kind that takes most memory for its bytes."""
    return repeat(b',"\xc4\x81"')


def _numbers() -> Iterator[bytes]:
    """So many different ones that most become objects of their own."""
    for n in map(str, range(10_000, 1_000_000)):
        yield from (f",{n[:-1]}e{n[-1]}".encode(), f",{n[0]}.{n[1:]}".encode(), f",{n[:-1]}.{n[-1]}".encode())


def _keys() -> Iterator[bytes]:
    letters = bytes(code for code in range(33, 127) if code not in b'"\\')
    return (b',"%s":0' % bytes(key) for key in chain(product(letters, repeat=3), product(letters, repeat=4)))


_FIELD = b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":'

_HIGHEST = "\U0001f600".encode()
_SPARE_VALUES = 249_900
_SPARE_OBJECTS = 9_990
BRIM: dict[str, Callable[[int], Large]] = {
    "strings, all that may be": _to_the_brim(_strings, each=1, brackets=b"[0]"),
    "numbers, all that may be": _to_the_brim(_numbers, each=1, brackets=b"[0]"),
    "small integers, all that may be": _to_the_brim(lambda: repeat(b",300"), each=1, brackets=b"[0]"),
    "arrays, all that may be": _to_the_brim(lambda: repeat(b"," + b"[" * 11 + b"]" * 11), each=12, brackets=b"[0]"),
    "keys, all that may be": _to_the_brim(_keys, each=1, brackets=b'{"":0}'),
    "keys, and fields of tensors": _to_the_brim(_keys, each=1, brackets=b'{"":0}', fields=8),
}
"""What is valid, and takes most memory for its bytes."""

LARGE: dict[str, Callable[[int], Large]] = {
    **{name: _ending(end) for name, end in ENDS.items()},
    **BRIM,
    "shuffled": _shuffled,
    "all at once": _all_at_once('"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0],"":0}}'),
    "all at once, fractions": _all_at_once('"{}":{{"":0.5,"dtype":"F4","shape":[0],"data_offsets":[0,0]}}'),
    "all at once, sizes": _all_at_once('"{}":{{"dtype":"F4","shape":[1,2,0,4],"data_offsets":[0,0],"":0.5}}'),
    "spaces": _filled(b"", b" ", b""),
    "zeros": _filled(b"", b"\0", b""),
    "brackets": _filled(b"", b"[", b""),
    "bytes that are no text": _filled(b"", b"\xff", b""),
    "digits": _filled(b'{"a":', b"9", b"}"),
    "digits of a fraction": _filled(_FIELD + b"0.", b"9", b"}}"),
    "digits of an exponent": _filled(_FIELD + b"1e", b"9", b"}}"),
    "integers of 308 digits": _filled(_FIELD + b"[1", b"," + b"9" * 308, b"]}}"),
    "negative integers": _filled(_FIELD + b"[1", b",-1", b"]}}"),
    "fractions": _filled(_FIELD + b"[1", b",0.1", b"]}}"),
    "backslashes": _filled(_FIELD + b'"', b"\\\\", b'"}}'),
    "escapes": _filled(_FIELD + b'"', b"\\u0061", b'"}}'),
    "surrogate escapes": _filled(_FIELD + b'"', b"\\ud83d\\ude00", b'"}}'),
    "short strings": _filled(_FIELD + b'["\\ud83d\\ude00"', b',""', b"]}}"),
    "strings that are brackets": _filled(_FIELD + b'["["', b',"["', b"]}}"),
    "empty objects": _filled(_FIELD + b"[{}", b",{}", b"]}}"),
    "small objects": _filled(_FIELD + b"[{}", b',{"a":1}', b"]}}"),
    "objects behind what looks like a tensor's": _filled(_FIELD + b"[0", b',"data_offsets"' + b",{}" * 7, b"]}}"),
    "objects with what looks like a tensor's": _filled(_FIELD + b"[0", b',{"data_offsets":0}' + b',{"":0}' * 7, b"]}}"),
    "objects, three by three": _filled(_FIELD + b"[0", b',"data_offsets"' + b",{}" * 3, b"]}}"),
    "arrays in arrays": _filled(_FIELD + b"[[]", b"," + b"[" * 100 + b"]" * 100, b"]}}"),
    "lengths": _filled(b'{"a":{"dtype":"U8","data_offsets":[0,0],"shape":[0', b",9", b"]}}"),
    "metadata": _filled(b'{"__metadata__":{"a":[1', b",1", b"]}}"),
}
