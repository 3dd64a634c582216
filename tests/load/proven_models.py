"""A model in places with different evidence, and bits that flip in it."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

import fastload
from fastload import Options
from models import MIB, random_tensor, save_sharded
from stored_models import COMMIT, write_cache, write_download_metadata, write_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

REPO = "org/name"
READERS = ["auto", "direct", "buffered", "mmap"]


@functools.lru_cache(maxsize=4)
def _make(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, bytes]]:
    """Tensors, and the files that hold them: once for all tests of a process, most of which take no longer."""
    shards = {
        f"model-0000{shard}-of-00002.safetensors": {
            f"{shard}.{n}": random_tensor(MIB + n, 10 * (2 * seed + shard) + n, torch.uint8) for n in range(5)
        }
        for shard in (1, 2)
    }
    with tempfile.TemporaryDirectory() as folder:
        save_sharded(Path(folder), shards)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    tensors = {name: tensor for shard in shards.values() for name, tensor in shard.items()}
    return tensors, {**files, "config.json": b"{}"}


class Model:
    """Two shards of 5 MiB each, kept in some place with some evidence."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        tensors, files = _make(seed)
        self.tensors, self.files = dict(tensors), dict(files)
        self.local, self.shared = folder / "local", folder / "shared"

    @property
    def options(self) -> Options:
        return Options(local=str(self.local), shared=str(self.shared), tiers=("local", "shared"))

    def cached(self) -> Path:
        """As the hub's client leaves it: blobs are called by their digests."""
        return write_cache(self.local, REPO, COMMIT, self.files)

    def warmed(self) -> Path:
        """With a manifest."""
        write_cache(self.shared, REPO, COMMIT, self.files)
        fastload.warm(REPO, options=self.options)
        return self.local / "models--org--name" / "snapshots" / COMMIT

    def downloaded(self) -> Path:
        """A plain folder with the metadata of ``hf download --local-dir``."""
        folder = write_folder(self.local.parent / "plain", self.files)
        write_download_metadata(folder, COMMIT, self.files)
        return folder

    def recorded(self) -> Path:
        """A plain folder with a manifest of what was in it."""
        folder = write_folder(self.local.parent / "recorded", self.files)
        fastload.verify(folder, record=True)
        return folder


PLACES: dict[str, Callable[[Model], Path]] = {
    "manifest": Model.warmed,
    "sha256": Model.cached,
    "etag": Model.downloaded,
    "manifest (recorded)": Model.recorded,
}


def two_large_tensors(folder: Path) -> bytes:
    """The content of one shard: its header and the tensor ``last`` have no block in common."""
    save_file({name: random_tensor(5 * MIB, seed) for seed, name in enumerate(("first", "last"))}, folder / "two")
    return (folder / "two").read_bytes()


def refuse_to_replace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be put in the place of the file that ``path`` leads to."""
    blob, real = str(path.resolve()), os.replace

    def refuse(made: str, target: str) -> None:
        if target == blob:
            raise PermissionError(13, "Permission denied")
        real(made, target)

    monkeypatch.setattr(os, "replace", refuse)


def flip(path: Path, at: int) -> None:
    """Flip one bit of a file in place, so that its size and mtime stay."""
    status = path.stat()
    with open(path.resolve(), "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << at % 8]))
    os.utime(path.resolve(), ns=(status.st_atime_ns, status.st_mtime_ns))
