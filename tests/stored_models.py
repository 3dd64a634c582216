"""Models as mounts and caches hold them, written by hand: what is read must not rest on what fastload writes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from typing import TYPE_CHECKING

from writing import INDEX_NAME, pack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COMMIT = "c0ffee" * 6 + "abcd"
OTHER_COMMIT = "decade" * 6 + "1234"


def model_files(seed: int = 0, shard_bytes: int = 64) -> dict[str, bytes]:
    """A small sharded model: two shards and their index, a config, a tokenizer."""
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files = {
        name: pack({f"layer.{number}": ("U8", [shard_bytes], _bytes(shard_bytes, seed * 10 + number))})
        for number, name in enumerate(names)
    }
    weight_map = {f"layer.{number}": name for number, name in enumerate(names)}
    files[INDEX_NAME] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    files["config.json"] = json.dumps({"seed": seed}).encode()
    files["tokenizer.json"] = b'{"version": "1.0"}'
    return files


def _bytes(count: int, seed: int) -> bytes:
    return hashlib.shake_256(str(seed).encode()).digest(count)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A plain folder of these files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@functools.lru_cache(maxsize=8)
def sha256(content: bytes) -> str:
    """The digest by which the hub names weights; remembered of the last few, as tests put one model in many places."""
    return hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=8)
def git_sha1(content: bytes) -> str:
    """The digest by which git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def blob_name(path: str, content: bytes) -> str:
    """What the hub's client calls the blob: weights are in LFS, all else in git."""
    return sha256(content) if path.endswith(".safetensors") else git_sha1(content)


def write_cache(root: Path, repo: str, commit: str, files: Mapping[str, bytes], ref: str | None = "main") -> Path:
    """A repo as the hub's client leaves it below ``root``; the folder of the snapshot."""
    folder = root / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        blob = folder / "blobs" / blob_name(name, content)
        blob.write_bytes(content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if ref is not None:
        (folder / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def write_tree(snapshot: Path, files: Mapping[str, bytes]) -> None:
    """The hub client's listing of ``snapshot``'s commit."""
    entries: dict[str, dict[str, object]] = {}
    for name, content in files.items():
        entries[name] = {"size": len(content), "blob_id": git_sha1(content)}
        if name.endswith(".safetensors"):
            entries[name] |= {"lfs_sha256": blob_name(name, content), "lfs_size": len(content)}
    path = snapshot.parent.parent / "trees" / f"{snapshot.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"format_version": 1, "files": entries}))


def write_download_metadata(folder: Path, commit: str, files: Mapping[str, bytes]) -> None:
    """What ``hf download --local-dir`` notes of each file."""
    for name, content in files.items():
        path = folder / ".cache/huggingface/download" / f"{name}.metadata"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{commit}\n{blob_name(name, content)}\n1.0\n")
