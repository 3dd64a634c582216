"""JSON objects in files of strangers: parsed strictly, and refused before they take more memory than they are worth."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastload._json_outline import count_excess, outline_values
from fastload.errors import FormatError, MemoryBudgetError, quoted
from fastload.strict_json import (
    DuplicateKeyError,
    JsonError,
    OddNumber,
    check_nesting,
    parse_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._json_outline import Density

NOT_ABOUT_TENSORS = "Most of it is not about tensors. Do not use it; ask whoever made it"
_SPARE_VALUES = 250_000
"""So many more may be in metadata, in fields that nobody knows, in higher dimensions."""


def check_values(raw: bytes, path: str, *, mark: bytes, each: int, count_again: Callable[[bytes], int]) -> None:
    """Refuse JSON that would take far more memory and time than what it is for.

    Args:
        raw: the JSON.
        path: for the error.
        mark: what each tensor has, and nothing else; where it is not there, or names hold commas, that proves nothing.
        each: how many values a tensor needs.
        count_again: told the commas and opening brackets outside of strings; how many of these no tensor needs.

    Raises:
        FormatError: it has many values that no tensor needs.
    """
    if count_excess(raw, mark, each) > _SPARE_VALUES and count_again(outline_values(raw)) > _SPARE_VALUES:
        found = f"more than {_SPARE_VALUES:,} JSON values beside those of its tensors"
        raise FormatError(path, found, "hardly any", hint=NOT_ABOUT_TENSORS)


def check_depth(raw: bytes, path: str) -> None:
    """Refuse JSON that is nested without end, where nobody looks.

    Raises:
        FormatError: it is deeper than the reference takes.
    """
    try:
        check_nesting(raw)
    except JsonError as exc:
        raise FormatError(path, str(exc), "fields that a parser can hold") from exc


def parse_object(
    raw: bytes,
    path: str,
    *,
    names_tensor: Callable[[str, Any], bool] = lambda _key, _value: False,
    read_object: Callable[[dict[str, Any]], Any] | None = None,
    density: Density | None = None,
) -> dict[str, Any]:
    """The JSON object that ``raw`` spells, with no key twice at any depth.

    Args:
        raw: all of the file, or the header's part of it.
        path: for the error.
        names_tensor: told a key that is there twice, and its last value; True if it is the name of a tensor.
        read_object: makes of each object, once it is parsed, what stands in its place: itself, or a tuple.
        density: as :func:`~fastload.strict_json.parse_json` says; it is for what :func:`check_values` does not weigh.

    Raises:
        FormatError: it is none.
        MemoryBudgetError: there is not enough memory to tell.
    """
    try:
        with memory_bounded(raw):
            document = parse_json(raw, read_object, density=density)
    except DuplicateKeyError as exc:
        tensor = exc.key if names_tensor(exc.key, exc.value) else None
        raise FormatError(path, str(exc), "each name once", tensor=tensor) from exc
    except JsonError as exc:
        raise FormatError(path, str(exc), "a JSON object in UTF-8") from exc
    if type(document) is not dict:
        raise FormatError(path, f"JSON that is {kind_of(document)}", "a JSON object")
    return document


@contextmanager
def memory_bounded(raw: bytes) -> Iterator[None]:
    """Say what parsing ``raw`` takes where the system has no memory for it.

    Raises:
        MemoryBudgetError: in place of MemoryError.
    """
    try:
        yield
    except MemoryError as exc:
        hint = "Raise the memory limit (ulimit -v, the container's): JSON takes up to 22 times its size to be read"
        raise MemoryBudgetError(22 * len(raw), 0, "what the system still grants this process", hint) from exc


def kind_of(value: Any) -> str:
    """What a JSON value is, or what was made of it, as a phrase; long values are cut."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, OddNumber):
        return f"the number {value[:40]}"
    if isinstance(value, dict | tuple):
        return "a JSON object" if isinstance(value, dict) else "a tensor's entry"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return quoted(value[:80]) if isinstance(value, str) else str(value)
