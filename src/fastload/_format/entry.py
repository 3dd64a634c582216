"""The entry of one tensor in a header: ``{"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]}``.

A header of 100 MB has more than a million of them. So each is judged once, by one condition, while its object is
parsed: where it holds, a tuple takes the object's place, and the memory of the object is used for the next one. Only of
one for which it does not hold is asked which rule it breaks.
"""

from __future__ import annotations

import math
from itertools import accumulate
from operator import itemgetter, mul
from typing import Any, NoReturn

from fastload._format.dtype import DTYPES, Dtype
from fastload._format.json_object import kind_of
from fastload.errors import FormatError

Entry = tuple[Dtype, tuple[int, ...], int, int]
"""Dtype, shape, and where it begins and ends in the data. JSON has no tuples: nothing else in a document is one."""

_MAX_RANK = 64
_U64_MAX = (1 << 64) - 1
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_FIELDS_OF = itemgetter("dtype", "shape", "data_offsets")


def read_entry(found: dict[str, Any]) -> Entry | dict[str, Any]:
    """The tensor's entry that an object of strict JSON spells; the object, where it is none or a wrong one."""
    try:
        spelling, shape, offsets = _FIELDS_OF(found)
        dtype = DTYPES[spelling]
        begin, end = offsets
    except (KeyError, TypeError, ValueError):
        return found
    # By type, since bool is a subclass of int; and what has two integers in strict JSON can only be an array.
    if not (type(begin) is type(end) is int and begin <= end and type(shape) is list and len(shape) <= _MAX_RANK):
        return found
    count = 1
    for length in shape:
        if type(length) is not int:
            return found
        count *= length
        if count > _U64_MAX:  # at each step, as in the reference: [0, 2^63, 4] is valid, and [2^63, 4, 0] is not
            return found
    return (dtype, tuple(shape), begin, end) if count * dtype.bits == (end - begin) * 8 else found


def refuse_entry(name: str, entry: Any, path: str) -> NoReturn:
    """Say which rule is broken by what stands for tensor ``name``, of which :func:`read_entry` made nothing.

    Raises:
        FormatError: names the file, the tensor, what was found and expected.
    """
    if type(entry) is not dict:
        raise FormatError(path, f"an entry that is {kind_of(entry)}", "an object", tensor=name)
    missing = sorted(_FIELDS - entry.keys())
    if missing:
        raise FormatError(path, f"no {' and no '.join(missing)}", "dtype, shape and data_offsets", tensor=name)
    spelling, shape, offsets = _FIELDS_OF(entry)
    dtype = DTYPES.get(spelling) if type(spelling) is str else None
    if dtype is None:
        raise FormatError(path, f"dtype {kind_of(spelling)}", "one of " + ", ".join(DTYPES), tensor=name)
    _check_integers(name, "shape", shape, path)
    _check_integers(name, "data_offsets", offsets, path)
    if len(shape) > _MAX_RANK:
        raise FormatError(path, f"{len(shape)} dimensions", f"at most {_MAX_RANK}", tensor=name)
    if len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004 - a begin and an end
        raise FormatError(path, f"data_offsets {offsets[:4]}", "[begin, end], begin ≤ end", tensor=name)
    _refuse_size(name, dtype, shape, offsets[1] - offsets[0], path)


def _check_integers(name: str, field: str, value: Any, path: str) -> None:
    if type(value) is not list:
        raise FormatError(path, f"{field} that is {kind_of(value)}", "an array of integers", tensor=name)
    for item in value:
        if type(item) is not int:  # bool is a subclass of int, so isinstance would take true
            raise FormatError(path, f"{field} with {kind_of(item)}", "integers from 0 to 2^64-1", tensor=name)


def _refuse_size(name: str, dtype: Dtype, shape: list[int], nbytes: int, path: str) -> NoReturn:
    if any(count > _U64_MAX for count in accumulate(shape, mul)):
        raise FormatError(path, "a shape whose product overflows", "less than 2^64 elements", tensor=name)
    bits = math.prod(shape) * dtype.bits
    if bits > _U64_MAX:
        raise FormatError(path, "a size that overflows", "less than 2^64 bits", tensor=name)
    if bits % 8:
        raise FormatError(path, f"{bits} bits", f"whole bytes ({dtype.name} is packed)", tensor=name)
    expected = f"{bits // 8:,}, for {dtype.name} of shape {shape}"
    raise FormatError(path, f"{nbytes:,} bytes by its data_offsets", expected, tensor=name)
