"""Two judges of one file: fastload and the reference (safetensors, in Rust), and whether they may differ.

That fastload is stricter excuses nothing by itself: :func:`declared_rules` is the list of ``docs/format.md`` once
more, decided on the JSON alone, without fastload's code and without a look at its verdict.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NamedTuple

import safetensors

from fastload._format.header import Header, parse_header, parse_header_length
from fastload.errors import FormatError

PATH = "/models/x.safetensors"

STRICTER_RULES = {
    "array for an entry": "an entry that is an array",
    "duplicate key": " twice",
    "more than 64 dimensions": " dimensions",
    "number of 1e308 or more": "number",
    "object for a dtype": "dtype a JSON object",
}
"""What docs/format.md declares, and what fastload then says that it found."""

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
"""``{name: (dtype, shape, bytes)}``."""


class Verdict(NamedTuple):
    """What came of asking both."""

    kind: Literal["accepted by both", "rejected by both", "stricter", "DISAGREEMENT"]
    detail: str


class _Object(list[tuple[str, Any]]):
    """A JSON object with every pair it was written with."""


class _Number(str):
    """The text of a number."""

    __slots__ = ()


def parse(file: bytes) -> Header:
    """The header of a whole file, by fastload.

    Raises:
        FormatError: it is malformed.
    """
    length = parse_header_length(file[:8], path=PATH, file_bytes=len(file))
    return parse_header(file[8 : 8 + length], path=PATH, file_bytes=len(file))


def parse_tensors(file: bytes) -> Tensors:
    """All tensors of a whole file, by fastload; raises as :func:`parse` does."""
    return {t.name: (t.dtype.name, t.shape, file[t.begin : t.end]) for t in parse(file).tensors}


def parse_by_reference(file: bytes) -> Tensors:
    """All tensors of a whole file, by the reference.

    Raises:
        safetensors.SafetensorError: it is malformed.
    """
    found = safetensors.deserialize(file)  # type: ignore[no-untyped-call]
    return {name: (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"])) for name, tensor in found}


def compare(file: bytes) -> Verdict:
    """Ask both judges, and the declared list where they differ."""
    try:
        theirs, rules = parse_by_reference(file), declared_rules(file)
    except safetensors.SafetensorError:
        theirs, rules = None, frozenset()
    try:
        ours = parse_tensors(file)
    except FormatError as exc:
        return _refused(exc, theirs, rules)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is a finding
        return Verdict("DISAGREEMENT", f"raised {exc!r}")
    return _accepted(ours, theirs, rules)


def _accepted(ours: Tensors, theirs: Tensors | None, rules: frozenset[str]) -> Verdict:
    if theirs is None:
        return Verdict("DISAGREEMENT", "accepted what the reference rejects")
    if ours != theirs:
        return Verdict("DISAGREEMENT", "other tensors than the reference")
    if rules:
        return Verdict("DISAGREEMENT", f"accepted against {min(rules)}")
    return Verdict("accepted by both", "")


def _refused(exc: FormatError, theirs: Tensors | None, rules: frozenset[str]) -> Verdict:
    if theirs is None:
        return Verdict("rejected by both", _reason(exc))
    for rule in sorted(rules):
        if STRICTER_RULES[rule] in exc.found:
            return Verdict("stricter", rule)
    return Verdict("DISAGREEMENT", f"rejected what the reference accepts: {exc}")


def _reason(exc: FormatError) -> str:
    """The kind of a rejection: what was found, without the names and values of this file."""
    kind = re.sub(r"( that is | with ).*", r"\1…", exc.found, flags=re.DOTALL)
    return re.sub(r"'.*'|\[.*\]|\d[\d,]*", "…", kind, flags=re.DOTALL)


def declared_rules(file: bytes) -> frozenset[str]:
    """Which of the rules that only fastload has a file breaks, if the reference accepts it."""
    length = int.from_bytes(file[:8], "little")
    document = json.loads(
        file[8 : 8 + length].decode(), object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number
    )
    found = {"array for an entry" for name, entry in document if type(entry) is list and name != "__metadata__"}
    for entry in (entry for _, entry in document if isinstance(entry, _Object)):
        found |= {"object for a dtype" for field, value in entry if field == "dtype" and isinstance(value, _Object)}
        found |= {"more than 64 dimensions" for field, value in entry if field == "shape" and len(value) > 64}
    return frozenset(found | _rules_at_any_depth(document))


def _rules_at_any_depth(value: object) -> set[str]:
    if isinstance(value, _Number):
        return {"number of 1e308 or more"} if abs(float(value)) >= 1e308 else set()
    if not isinstance(value, list):
        return set()
    children = [item for _, item in value] if isinstance(value, _Object) else value
    numbers = {item for item in children if isinstance(item, _Number)}  # of a million, all may be the same
    others = [item for item in children if not isinstance(item, _Number)]
    found = set().union(*map(_rules_at_any_depth, [*numbers, *others]))
    if isinstance(value, _Object) and len({key for key, _ in value}) < len(value):
        found.add("duplicate key")
    return found
