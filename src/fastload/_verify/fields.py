"""The fields of a signed document: each is of the type that it must be, or the document is refused."""

from __future__ import annotations

from typing import Any

from fastload._json_outline import Density
from fastload.errors import SignatureError, quoted
from fastload.strict_json import JsonError, parse_json

_DENSITY = Density(value_bytes=16, object_bytes=48)
"""Of a signed file there are 50 bytes at least for each object, and 25 for each comma and opening bracket."""


def refusal(path: str, found: str, expected: str, hint: str = "") -> SignatureError:
    """What is said of a signature that does not hold."""
    return SignatureError(path, found, expected, hint or "Do not use the model; ask whoever signed it")


def parse_document(raw: bytes, what: str, path: str) -> dict[str, Any]:
    """The JSON object that ``raw`` spells, every key once."""
    try:
        document = parse_json(raw, density=_DENSITY)
    except JsonError as exc:
        raise refusal(path, f"{what} with {exc}", "JSON that every reader sees alike") from exc
    return as_object(document, what, path)


def as_object(value: Any, what: str, path: str) -> dict[str, Any]:
    """``value``, if it is a JSON object."""
    if type(value) is not dict:
        raise refusal(path, f"{what} that is no object", "a JSON object")
    return value


def as_array(value: Any, what: str, path: str) -> list[Any]:
    """``value``, if it is a JSON array."""
    if type(value) is not list:
        raise refusal(path, f"{what} that is no array", "a JSON array")
    return value


def as_text(value: Any, what: str, path: str) -> str:
    """``value``, if it is a JSON string."""
    if type(value) is not str:
        raise refusal(path, f"{what} that is no text", "a text")
    return value


def check_is(value: Any, expected: str, what: str, path: str, hint: str = "") -> None:
    """Check that ``value`` is the text ``expected``."""
    if value != expected:
        found = quoted(value) if type(value) is str else "something that is no text"
        raise refusal(path, f"{what}: {found}", quoted(expected), hint)
