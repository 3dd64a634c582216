"""JSON as a header must be written: strict UTF-8, no duplicate keys, no NaN, bounded nesting.

Python's ``json`` guesses UTF-16 and UTF-32, takes a BOM, NaN, duplicate keys, lone surrogates and any nesting. The
reference (serde_json) does not, and two readers that disagree about one file are an attack. Numbers that are not
unsigned 64-bit integers become :class:`OddNumber`: harmless in a field nobody reads, and never an ``int`` where one is
expected. Those that no float holds are refused, as by serde_json; since it rounds in its own way where floats end, the
line is drawn a little below.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from fastload._json_outline import find_excess, outside_strings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._json_outline import Density

_MAX_DEPTH = 127
"""What serde_json accepts."""

_SAFE_RECURSION = 10_000
"""Up to this recursion limit RecursionError comes before the end of the stack; 8 MiB last for some 80,000 levels."""

_SQUARE = bytes.maketrans(b"{}", b"[]")
_NEITHER = bytes(set(range(256)) - set(b'[]{}"'))
_RUNS = re.compile(rb"(\[+)(\]*)")

_REMEMBERED = 4096
"""So many different numbers, the first ones, are looked at once only."""
_U64_DIGITS = 20
_MAX_DIGITS = 308
_MAX_FLOAT = 1e308
_IN_CLASSES = bytes.maketrans(b"123456789" + b"[: \t\n\r", b"0" * 9 + b"," * 6)
"""All digits as zeros, and as commas all bytes behind which a number can begin."""
_U64_MAX = (1 << 64) - 1
_LONE_SURROGATE = re.compile(rb"\\ud(?:[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\ud)[c-f])")
"""A first half without a second one behind it, or a second without a first one before it; in lower case."""


class OddNumber(str):
    """The text of a number that is negative, fractional, or above 2^64-1."""

    __slots__ = ()


class JsonError(ValueError):
    """Not the JSON it should be; the text says what was found."""


def _integer(text: str) -> int | OddNumber:
    if text[0] == "-" or len(text) > _U64_DIGITS:
        if len(text.lstrip("-")) > _MAX_DIGITS:
            raise JsonError(f"a number of {len(text):,} digits")
        return OddNumber(text)  # a billion digits would take int() hours
    value = int(text)
    return value if value <= _U64_MAX else OddNumber(text)


def _fraction(text: str) -> OddNumber:
    if abs(float(text)) >= _MAX_FLOAT:
        raise JsonError(f"the number {text[:40]}, which is too large for a float")
    return OddNumber(text)


def _constant(text: str) -> NoReturn:
    raise JsonError(f"the literal {text}")


class _Remembered(dict[str, "int | OddNumber"]):
    """Numbers by their text: a hook for each costs a third, unless most are a few ones. None is ever forgotten."""

    def __init__(self, make: Callable[[str], int | OddNumber]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> int | OddNumber:
        value = self._make(text)
        if len(self) < _REMEMBERED:
            self[text] = value
        return value


def _object(pairs: list[tuple[str, Any]], read_object: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise DuplicateKeyError(twice, found[twice])
    return found if read_object is None else read_object(found)


class DuplicateKeyError(JsonError):
    """One object names ``key`` twice, the last time for ``value``."""

    def __init__(self, key: str, value: Any) -> None:
        super().__init__(f"the key {key[:100]!r} twice")
        self.key = key
        self.value = value


def parse_json(
    raw: bytes, read_object: Callable[[dict[str, Any]], Any] | None = None, *, density: Density | None = None
) -> Any:
    """The value that ``raw`` spells; if wished, with what ``read_object`` makes of each object in its place.

    Args:
        raw: strict JSON.
        read_object: told each object, once it is parsed.
        density: what holds more values is not parsed. None: ``raw`` is small, or whoever calls has counted them.

    Raises:
        JsonError: with a phrase that says what was found instead.
    """
    most = None if density is None else find_excess(raw, density)
    if most is not None:
        raise JsonError(f"more than {most:,} JSON values")
    try:
        text = str(raw, "utf-8")
    except UnicodeDecodeError as exc:
        raise JsonError(f"bytes that are not UTF-8 at byte {exc.start}") from exc
    if sys.getrecursionlimit() > _SAFE_RECURSION:
        check_nesting(raw)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object if read_object is None else partial(_object, read_object=read_object),
            parse_int=_Remembered(_integer).__getitem__ if _may_hold_odd_integers(raw) else int,
            parse_float=_Remembered(_fraction).__getitem__,
            parse_constant=_constant,
        )
    except RecursionError as exc:
        raise JsonError(f"more than {_MAX_DEPTH} levels of nesting") from exc
    except json.JSONDecodeError as exc:
        raise JsonError(f"invalid JSON at character {exc.pos} ({exc.msg})") from exc
    _check_surrogates(raw)
    return value


def _may_hold_odd_integers(raw: bytes) -> bool:
    """True if an integer may be negative, or so long that it may be above 2^64-1 and ``int`` must not see it.

    Looked for by ``in``: a regular expression takes seconds for 100 MB.
    """
    classes = raw.translate(_IN_CLASSES)
    if b"0" * _U64_DIGITS in classes:
        return True
    return b"-" in raw and b",-" in classes  # most headers have no dash at all


def check_nesting(raw: bytes | bytearray) -> None:
    """Raise :class:`JsonError` if ``raw`` is nested deeper than serde_json takes.

    Peels off the innermost brackets as long as they are many, then counts runs; to walk the parsed value takes several
    times as long.
    """
    brackets = outside_strings(raw, _NEITHER).translate(_SQUARE)
    depth = 0
    while brackets.count(b"[]") > len(brackets) // 8:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    for run in _RUNS.finditer(brackets):
        depth += len(run[1])
        if depth > _MAX_DEPTH:
            raise JsonError(f"more than {_MAX_DEPTH} levels of nesting")
        depth -= len(run[2])


def _check_surrogates(raw: bytes) -> None:
    """Look at the escapes of ``raw``, which is valid otherwise: to walk all that was parsed takes ten times as long."""
    if b"\\" not in raw:
        return
    escapes = raw.replace(rb"\\", b"--").lower()  # not by nothing: what it parts would become a pair
    if _LONE_SURROGATE.search(escapes):
        raise JsonError("half of a surrogate pair in a string")
