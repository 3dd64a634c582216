"""The index of a sharded checkpoint: ``weight_map`` says which shard holds which tensor.

Its file names come from strangers and are joined to a folder, so they are held to be plain relative names before
anything is opened; path traversal here is a bug other loaders have had more than once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastload._format.json_object import check_depth, check_values, parse_object
from fastload.errors import FormatError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_INDEX_BYTES = 100_000_000
"""The header's cap: an index names the same tensors."""

INDEX_SUFFIX = ".safetensors.index.json"
SHARD_SUFFIX = ".safetensors"
_MAX_NAME_BYTES = 1024
_LEADS_OUT = "A shard may be called by a plain name below the index alone. Do not use this index; ask whoever made it"


@dataclass(frozen=True, slots=True)
class Index:
    """A valid index: every tensor's shard, as a relative path with ``/``."""

    path: str
    shard_of: dict[str, str]
    metadata: dict[str, Any]
    is_by_headers: bool = False
    """True if the shards' headers said which tensors there are, and no file did."""

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards it names, each once, sorted."""
        return tuple(sorted(set(self.shard_of.values())))

    def by_shard(self) -> dict[str, list[str]]:
        """The tensors that it says are in each shard, in the order of the file."""
        held: dict[str, list[str]] = {}
        for tensor, shard in self.shard_of.items():
            held.setdefault(shard, []).append(tensor)
        return held

    def explain(self, error: FormatError, shard: str) -> FormatError:
        """``error``, which came of ``shard``, with what is missed of it."""
        held = self.by_shard()[shard]
        expected = f"{error.expected}, since {quoted(self.path)} names it for {show_tensors(held)}"
        return replace(error, expected=expected, tensor=held[0])


def show_tensors(names: Sequence[str]) -> str:
    """Some tensors, as a phrase: the first one, and how many more."""
    more = len(names) - 1
    if not more:
        return quoted(names[0])
    return f"{quoted(names[0])} and {more:,} more tensor" + ("s" if more > 1 else "")


def parse_index(raw: bytes, *, path: str) -> Index:
    """The index spelled by ``raw``.

    Raises:
        FormatError: it is no JSON object, has no ``weight_map`` of strings, or names a file outside its folder.
    """
    mark = f'{SHARD_SUFFIX}"'.encode()
    check_values(raw, path, mark=mark, each=1, count_again=lambda outline: len(outline) - raw.count(mark))
    document = parse_object(raw, path, names_tensor=_is_shard_of)
    check_depth(raw, path)
    weight_map = document.get("weight_map")
    if type(weight_map) is not dict:
        raise FormatError(path, "no weight_map that is an object", '{"weight_map": {tensor: file}}')
    if not weight_map:
        raise FormatError(path, "a weight_map that names no tensor", "the shards of a model")
    for tensor, name in weight_map.items():
        if type(name) is not str:
            raise FormatError(path, "a shard name that is no string", "a file name", tensor=tensor)
    for name in dict.fromkeys(weight_map.values()):
        fault = _find_fault(name)
        if fault is not None:
            tensor = next(tensor for tensor, shard in weight_map.items() if shard == name)
            expected, hint = fault
            raise FormatError(path, f"the shard name {quoted(name)}", expected, tensor=tensor, hint=hint)
    metadata = document.get("metadata")
    return Index(path, weight_map, metadata if type(metadata) is dict else {})


def _is_shard_of(_tensor: str, name: Any) -> bool:
    return isinstance(name, str) and name.endswith(SHARD_SUFFIX)


def _find_fault(name: str) -> tuple[str, str] | None:
    """What was expected, and what to do, where a shard's name is absolute, climbs, is a URL, or is of another kind."""
    parts = name.split("/")
    harmless = all(part not in {"", ".", ".."} for part in parts) and "\\" not in name and name.isprintable()
    if not harmless or "://" in name or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        return "a plain relative file name", _LEADS_OUT
    if not name.endswith(SHARD_SUFFIX):
        return f"a name that ends in {SHARD_SUFFIX}", "fastload reads safetensors only: take the index of such weights"
    return None
