"""JSON of which there is one spelling only: RFC 8785, the JSON Canonicalization Scheme.

What is digested, signed or compared byte by byte must come out the same from every writer. Fractions are left out:
their spelling is the hard half of the RFC, and nothing that fastload digests has one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

MAX_INTEGER = (1 << 53) - 1
"""Above it, readers that keep numbers as doubles (the RFC's own) would see another one."""

Json = str | int | None | Sequence["Json"] | Mapping[str, "Json"]
"""What can be spelled; ``bool`` is an ``int`` to the type checker, and spelled as itself."""


def canonical_json(value: Json) -> bytes:
    """The spelling of ``value``: UTF-8, no spaces, keys in the order of their UTF-16 code units.

    Raises:
        TypeError: there is something else in it, such as a float.
        ValueError: an integer beyond 2^53-1, or half of a surrogate pair.
    """
    # Python escapes in strings exactly what the RFC wants escaped, and in the same way.
    return json.dumps(_in_order(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _in_order(value: Json) -> Json:
    """``value`` as the types that ``json`` knows, with the keys of all objects in order."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"{value} is beyond 2^53-1")
        return value
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _in_order(value[key]) for key in keys}
    if isinstance(value, (list, tuple)):
        if {*map(type, value)} == {str}:
            return value  # as the tens of thousands of digests of a large model: there is nothing to order
        return [_in_order(item) for item in value]
    raise TypeError(f"canonical JSON has no {type(value).__name__}")
