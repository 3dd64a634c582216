"""The index of a sharded checkpoint: ``weight_map`` says which shard holds which tensor.

Its file names come from strangers and are joined to a folder, so they are held to be plain relative names before
anything is opened; path traversal here is a bug other loaders have had more than once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastload._format.json_object import check_depth, check_values, parse_object
from fastload.errors import FormatError, quoted

MAX_INDEX_BYTES = 100_000_000
"""The header's cap: an index names the same tensors."""

INDEX_SUFFIX = ".safetensors.index.json"
SHARD_SUFFIX = ".safetensors"
_MAX_NAME_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Index:
    """A valid index: every tensor's shard, as a relative path with ``/``."""

    path: str
    shard_of: dict[str, str]
    metadata: dict[str, Any]

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards it names, each once, sorted."""
        return tuple(sorted(set(self.shard_of.values())))


def parse_index(raw: bytes, *, path: str) -> Index:
    """The index spelled by ``raw``.

    Raises:
        FormatError: it is no JSON object, has no ``weight_map`` of strings, or names a file outside its folder.
    """
    check_values(raw, raw.count(SHARD_SUFFIX.encode()), path)
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
    for name in set(weight_map.values()):
        _check_shard_name(name, path)
    metadata = document.get("metadata")
    return Index(path, weight_map, metadata if type(metadata) is dict else {})


def _is_shard_of(_tensor: str, name: Any) -> bool:
    return isinstance(name, str) and name.endswith(SHARD_SUFFIX)


def _check_shard_name(name: str, path: str) -> None:
    """Refuse what is absolute, climbs, is a URL, or is no safetensors file."""
    parts = name.split("/")
    harmless = all(part not in {"", ".", ".."} for part in parts) and "\\" not in name and name.isprintable()
    if not harmless or "://" in name or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        hint = "This index points outside its own folder. Do not use it; ask whoever made it"
        raise FormatError(path, f"the shard name {quoted(name)}", "a plain relative file name", hint=hint)
    if not name.endswith(SHARD_SUFFIX):
        raise FormatError(path, f"the shard name {quoted(name)}", f"a name that ends in {SHARD_SUFFIX}")
