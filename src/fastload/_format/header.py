"""The header of a shard: eight bytes of length, JSON, then the tensors back to back.

::

    N: u64 little endian │ N bytes of JSON │ data
                                            ↑ data_start = 8 + N; data_offsets count from here

Parsing is total: a header either becomes a :class:`Header` whose tensors tile the data exactly, or a ``FormatError``
says which tensor broke which rule. The rules are those of ``read_metadata`` and ``validate`` in safetensors 0.8
(``safetensors/src/tensor.rs``); docs/format.md lists where this parser is stricter.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from fastload._collector import collector_paused
from fastload._format.dtype import DTYPES, Dtype
from fastload.errors import FormatError, MemoryBudgetError, quoted
from fastload.strict_json import (
    DuplicateKeyError,
    JsonError,
    OddNumber,
    check_nesting,
    has_more_values,
    parse_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The reference's cap. A parser with another one would see other tensors in the same file."""
_MAX_RANK = 64
_VALUES_PER_TENSOR = 16
"""Commas and brackets of an entry of ten dimensions."""
_SPARE_VALUES = 1_000_000
"""So many more may be in metadata, in fields that nobody knows, in higher dimensions."""
_U64_MAX = (1 << 64) - 1
_BEGIN, _END = itemgetter(3), itemgetter(4)
_METADATA = "__metadata__"
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_FIELDS_OF = itemgetter("dtype", "shape", "data_offsets")
_INTEGERS = {int}
_STRANGERS = (
    (b"version ", "It is git-lfs's pointer to the file, not the file: run git lfs pull, or fetch it from the hub"),
    (b"<", "It is a web page, such as a proxy or a login answers: fetch the file again"),
    (b"PK", "It is a zip archive, such as torch.save writes: convert it to safetensors"),
    (b"GGUF", "It is a GGUF file: fastload reads safetensors only"),
)
"""What is often found under a name that ends in .safetensors."""
_UNKNOWN_STRANGER = "This is no safetensors file; see what wrote it"
_TRUNCATED = "The file is cut short or was never finished: fetch it again"


class TensorInfo(NamedTuple):
    """Where one tensor lies in its shard, and as what. A tuple, since headers may name a million of them."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    begin: int
    """First byte in the file (included), counted from the start of the file."""
    end: int
    """Last byte in the file (not included)."""

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """A valid header: ``tensors`` in file order, tiling ``[data_start, file_bytes)`` without hole or overlap."""

    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    data_start: int
    file_bytes: int
    digest: str
    """The BLAKE3 of the bytes before ``data_start``, as they were parsed."""


def parse_header_length(prefix: bytes, *, path: str, file_bytes: int) -> int:
    """N, the length of the JSON, from the first eight bytes of a file of ``file_bytes``.

    Call it before anything of that size is allocated.

    Raises:
        FormatError: the file is too short for it, or N is above the cap.
    """
    if len(prefix) < LENGTH_BYTES:
        raise FormatError(path, f"{file_bytes} bytes", "at least 8, the length of the header", hint=_TRUNCATED)
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        hint = next((hint for start, hint in _STRANGERS if prefix.startswith(start)), _UNKNOWN_STRANGER)
        raise FormatError(path, f"a header length of {length:,}", f"at most {MAX_HEADER_BYTES:,}", hint=hint)
    if LENGTH_BYTES + length > file_bytes:
        expected = f"at least {LENGTH_BYTES + length:,}, as its header length says"
        raise FormatError(path, f"{file_bytes:,} bytes", expected, hint=_TRUNCATED)
    return length


def parse_header(raw: bytes, *, path: str, file_bytes: int) -> Header:
    """The header spelled by ``raw`` (the N bytes after the length) of a file of ``file_bytes``.

    Raises:
        FormatError: names the file, the tensor where there is one, what was found and expected.
        MemoryBudgetError: there is not enough memory to tell.
    """
    with collector_paused(), _memory_bounded(raw):
        return _build_header(raw, path, file_bytes)


def check_values(raw: bytes, expected_values: int, path: str) -> None:
    """Refuse JSON that would take far more memory than what it is for.

    Raises:
        FormatError: it has many more values than ``expected_values``.
    """
    most = expected_values + _SPARE_VALUES
    if has_more_values(raw, most):
        hint = "Most of it is not about tensors. Do not use it; ask whoever made it"
        raise FormatError(path, f"more than {most:,} JSON values", "not so many beside its tensors", hint=hint)


def check_depth(raw: bytes, path: str) -> None:
    """Refuse JSON that is nested without end, where nobody looks.

    Raises:
        FormatError: it is deeper than the reference takes.
    """
    try:
        check_nesting(raw)
    except JsonError as exc:
        raise FormatError(path, str(exc), "fields that a parser can hold") from exc


@contextmanager
def _memory_bounded(raw: bytes) -> Iterator[None]:
    try:
        yield
    except MemoryError as exc:
        hint = "Raise the memory limit (ulimit -v, the container's): JSON takes some twenty times its size to be read"
        raise MemoryBudgetError(20 * len(raw), 0, "what the system still grants this process", hint) from exc


def parse_object(
    raw: bytes, path: str, *, names_tensor: Callable[[str, Any], bool] = lambda _key, _value: False
) -> dict[str, Any]:
    """The JSON object that ``raw`` spells, with no key twice at any depth.

    Args:
        raw: all of the file, or the header's part of it.
        path: for the error.
        names_tensor: told a key that is there twice, and its last value; True if it is the name of a tensor.

    Raises:
        FormatError: it is none.
        MemoryBudgetError: there is not enough memory to tell.
    """
    try:
        with _memory_bounded(raw):
            document = parse_json(raw)
    except DuplicateKeyError as exc:
        tensor = exc.key if names_tensor(exc.key, exc.value) else None
        raise FormatError(path, str(exc), "each name once", tensor=tensor) from exc
    except JsonError as exc:
        raise FormatError(path, str(exc), "a JSON object in UTF-8") from exc
    if type(document) is not dict:
        raise FormatError(path, f"JSON that is {_kind(document)}", "a JSON object")
    return document


def _build_header(raw: bytes, path: str, file_bytes: int) -> Header:
    check_values(raw, _VALUES_PER_TENSOR * raw.count(b'"data_offsets"'), path)
    # Only a tensor's entry is an object, and so tells a tensor's name.
    document = parse_object(raw, path, names_tensor=lambda key, value: isinstance(value, dict) and key != _METADATA)
    metadata = _parse_metadata(document.pop(_METADATA, None), path)
    data_start = LENGTH_BYTES + len(raw)
    tensors = [_parse_tensor(name, entry, path, data_start) for name, entry in document.items()]
    if any(len(entry) > len(_FIELDS) for entry in document.values()):
        check_depth(raw, path)  # fields nobody knows are allowed; elsewhere nothing can be nested at all
    tensors.sort(key=_END)  # two stable sorts by integers take a quarter of one by pairs
    tensors.sort(key=_BEGIN)
    _check_tiling(tensors, path, data_start, file_bytes)
    digest = blake3(len(raw).to_bytes(LENGTH_BYTES, "little")).update(raw).hexdigest()
    return Header(tuple(tensors), metadata, data_start, file_bytes, digest)


def _kind(value: Any) -> str:
    """What a JSON value is, as a phrase; long values are cut."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, OddNumber):
        return f"the number {value[:40]}"
    if isinstance(value, dict):
        return "a JSON object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return quoted(value[:80]) if isinstance(value, str) else str(value)


def _parse_metadata(value: Any, path: str) -> dict[str, str]:
    if value is None:  # absent, or null, which writers do produce and the reference takes
        return {}
    if type(value) is not dict:
        raise FormatError(path, f"{_METADATA} that is {_kind(value)}", "an object of strings")
    for key, item in value.items():
        if type(item) is not str:
            raise FormatError(path, f"{_METADATA}[{quoted(key)}] that is {_kind(item)}", "a string")
    return value


def _parse_tensor(name: str, entry: Any, path: str, data_start: int) -> TensorInfo:
    if type(entry) is not dict:
        raise FormatError(path, f"an entry that is {_kind(entry)}", "an object", tensor=name)
    try:
        spelling, shape, offsets = _FIELDS_OF(entry)
    except KeyError:
        raise _lacks_fields(name, entry, path) from None
    dtype = DTYPES.get(spelling) if type(spelling) is str else None
    if dtype is None:
        raise FormatError(path, f"dtype {_kind(spelling)}", "one of " + ", ".join(DTYPES), tensor=name)
    # Asked of both at once, since a header of 100 MB may have a million tensors: which one is wrong is told apart then.
    if not (type(shape) is type(offsets) is list and {*map(type, shape), *map(type, offsets)} <= _INTEGERS):
        _check_integers(name, "shape", shape, path)
        _check_integers(name, "data_offsets", offsets, path)
    if len(shape) > _MAX_RANK:
        raise FormatError(path, f"{len(shape)} dimensions", f"at most {_MAX_RANK}", tensor=name)
    if len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004 - a begin and an end
        raise FormatError(path, f"data_offsets {offsets[:4]}", "[begin, end], begin ≤ end", tensor=name)
    begin, end = offsets
    count = math.prod(shape)
    if count * dtype.bits != (end - begin) * 8 or (count == 0 and 0 in shape[1:]):
        _check_size(name, dtype, shape, end - begin, path)
    return TensorInfo(name, dtype, tuple(shape), data_start + begin, data_start + end)


def _lacks_fields(name: str, entry: dict[str, Any], path: str) -> FormatError:
    missing = sorted(_FIELDS - entry.keys())
    return FormatError(path, f"no {' and no '.join(missing)}", "dtype, shape and data_offsets", tensor=name)


def _check_integers(name: str, field: str, value: Any, path: str) -> None:
    if type(value) is not list:
        raise FormatError(path, f"{field} that is {_kind(value)}", "an array of integers", tensor=name)
    for item in value:
        if type(item) is not int:  # bool is a subclass of int, so isinstance would take true
            raise FormatError(path, f"{field} with {_kind(item)}", "integers from 0 to 2^64-1", tensor=name)


def _check_size(name: str, dtype: Dtype, shape: list[int], nbytes: int, path: str) -> None:
    """Checked step by step as the reference does, for which [0, 2^63, 4] is valid and [2^63, 4, 0] overflows."""
    count = 1
    for length in shape:
        count *= length
        if count > _U64_MAX:
            raise FormatError(path, "a shape whose product overflows", "less than 2^64 elements", tensor=name)
    bits = count * dtype.bits
    if bits > _U64_MAX:
        raise FormatError(path, "a size that overflows", "less than 2^64 bits", tensor=name)
    if bits % 8:
        raise FormatError(path, f"{bits} bits", f"whole bytes ({dtype.name} is packed)", tensor=name)
    if nbytes != bits // 8:
        expected = f"{bits // 8:,}, for {dtype.name} of shape {shape}"
        raise FormatError(path, f"{nbytes:,} bytes by its data_offsets", expected, tensor=name)


def _check_tiling(tensors: list[TensorInfo], path: str, data_start: int, file_bytes: int) -> None:
    """Each tensor begins where the one before ended, and the last one ends with the file."""
    end = data_start
    for tensor in tensors:
        if tensor.begin != end:
            what = "a hole before it" if tensor.begin > end else "an overlap with the tensor before it"
            found = f"{what} (it begins at data offset {tensor.begin - data_start:,})"
            raise FormatError(path, found, f"{end - data_start:,}", tensor=tensor.name)
        end = tensor.end
    if end != file_bytes:
        hint = _TRUNCATED if end > file_bytes else "Bytes after the last tensor belong to nothing: fetch it again"
        raise FormatError(path, f"{file_bytes:,} bytes", f"{end:,}, where the last tensor ends", hint=hint)
