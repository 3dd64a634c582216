"""The header of a shard: eight bytes of length, JSON, then the tensors back to back.

::

    N: u64 little endian │ N bytes of JSON │ data
                                            ↑ data_start = 8 + N; data_offsets count from here

Parsing is total: a header either becomes a :class:`Header` whose tensors tile the data exactly, or a ``FormatError``
says which tensor broke which rule. The rules are those of ``read_metadata`` and ``validate`` in safetensors 0.8
(``safetensors/src/tensor.rs``); docs/format.md lists where this parser is stricter.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from fastload._collector import collector_paused
from fastload._format.entry import read_entry, refuse_entry
from fastload._format.json_object import (
    NOT_ABOUT_TENSORS,
    check_depth,
    check_values,
    kind_of,
    memory_bounded,
    parse_object,
)
from fastload._json_outline import count_excess
from fastload.errors import FormatError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._format.dtype import Dtype

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The reference's cap. A parser with another one would see other tensors in the same file."""
_BRACKETS_PER_TENSOR = 3
"""Of the entry, its shape and its offsets."""
_VALUES_PER_TENSOR = 16
"""Commas and brackets of an entry of ten dimensions."""
_ENTRY = b'{"dtype":'
"""How an entry begins, by all who write it. In no string: the quote would end it, and what follows is no JSON then."""
_SPARE_OBJECTS = 10_000
"""So many may be in fields that nobody knows."""
_BEGIN, _END = itemgetter(3), itemgetter(4)
_METADATA = "__metadata__"
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

    @property
    def is_all(self) -> bool:
        """True if nothing comes after it: no tensor of the file has bytes."""
        return self.data_start == self.file_bytes


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
    with collector_paused(), memory_bounded(raw):
        return _build_header(raw, path, file_bytes)


def _build_header(raw: bytes, path: str, file_bytes: int) -> Header:
    each = _VALUES_PER_TENSOR  # and of each object: few of these are no tensors
    check_values(raw, path, mark=_ENTRY, each=each, count_again=lambda outline: count_excess(outline, b"{", each))
    # Only a tensor's entry is an object, and so tells a tensor's name.
    document = parse_object(raw, path, names_tensor=_names_tensor, read_object=_entry_reader(path))
    metadata = _parse_metadata(document.pop(_METADATA, None), path)
    data_start = LENGTH_BYTES + len(raw)
    tensors = _read_tensors(document, path, data_start)
    if raw.count(b"[") + raw.count(b"{") > _BRACKETS_PER_TENSOR * len(tensors) + 2:  # of the header, and of metadata
        check_depth(raw, path)  # fields nobody knows are allowed; elsewhere nothing can be nested at all
    tensors.sort(key=_END)  # two stable sorts by integers take a quarter of one by pairs
    tensors.sort(key=_BEGIN)
    _check_tiling(tensors, path, data_start, file_bytes)
    digest = blake3(len(raw).to_bytes(LENGTH_BYTES, "little")).update(raw).hexdigest()
    return Header(tuple(tensors), metadata, data_start, file_bytes, digest)


def _entry_reader(path: str) -> Callable[[dict[str, Any]], Any]:
    """:func:`read_entry`, up to as many objects as may be none: each costs what a tensor does, for two bytes.

    And each makes room for the values of a tensor.
    """
    others = count(1)

    def read(found: dict[str, Any]) -> Any:
        entry = read_entry(found)
        if entry is found and next(others) > _SPARE_OBJECTS:
            found_many = f"more than {_SPARE_OBJECTS:,} JSON objects that are no tensor's entry"
            raise FormatError(path, found_many, "hardly any", hint=NOT_ABOUT_TENSORS)
        return entry

    return read


def _names_tensor(key: str, value: Any) -> bool:
    return isinstance(value, dict | tuple) and key != _METADATA


def _read_tensors(document: dict[str, Any], path: str, data_start: int) -> list[TensorInfo]:
    make = TensorInfo._make  # a quarter less than by its fields: of a million that is noticed
    tensors = []
    for name, entry in document.items():
        if type(entry) is not tuple:
            refuse_entry(name, entry, path)
        dtype, shape, begin, end = entry
        tensors.append(make((name, dtype, shape, data_start + begin, data_start + end)))
    return tensors


def _parse_metadata(value: Any, path: str) -> dict[str, str]:
    if value is None:  # absent, or null, which writers do produce and the reference takes
        return {}
    if type(value) is not dict:
        raise FormatError(path, f"{_METADATA} that is {kind_of(value)}", "an object of strings")
    for key, item in value.items():
        if type(item) is not str:
            raise FormatError(path, f"{_METADATA}[{quoted(key)}] that is {kind_of(item)}", "a string")
    return value


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
        cut = next((tensor.name for tensor in tensors if tensor.end > file_bytes), None)
        hint = _TRUNCATED if end > file_bytes else "Bytes after the last tensor belong to nothing: fetch it again"
        expected = f"it at {end:,}, where the last tensor ends"
        raise FormatError(path, f"the end of the file at byte {file_bytes:,}", expected, tensor=cut, hint=hint)
