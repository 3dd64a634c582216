"""Safetensors files, byte by byte: the test of a reader must not rest on a writer that knows what readers like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

INDEX_NAME = "model.safetensors.index.json"


def entry(dtype: str, shape: Sequence[int], begin: int, end: int) -> dict[str, object]:
    """One tensor's entry in a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def shard_bytes(header: Mapping[str, object] | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of this header and data, valid or not. ``header`` as bytes is taken as it is; ``length`` lies about it."""
    spelled = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return (len(spelled) if length is None else length).to_bytes(8, "little") + spelled + data


def pack(tensors: Mapping[str, tuple[str, Sequence[int], bytes]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A valid file of ``{name: (dtype, shape, data)}``, the data back to back in the order given."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = entry(dtype, shape, end, end + len(data))
        end += len(data)
    return shard_bytes(header, b"".join(data for _, _, data in tensors.values()))


def one_tensor(name: str = "a", data: bytes = b"\0\1\2\3") -> bytes:
    """The smallest file that says something: one U8 tensor."""
    return pack({name: ("U8", [len(data)], data)})


def write_index(folder: Path, weight_map: Mapping[str, str], name: str = INDEX_NAME) -> Path:
    """An index in ``folder`` that says ``{tensor: file}``; its path."""
    path = folder / name
    path.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": dict(weight_map)}))
    return path


def write_shards(folder: Path, shards: Mapping[str, Sequence[str]]) -> None:
    """Valid shards in ``folder``, each holding the small tensors named: ``{file: [tensor, …]}``."""
    for file, names in shards.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack({name: ("U8", [4], name.encode()[:4].ljust(4, b"\0")) for name in names}))
