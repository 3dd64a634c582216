"""Files that change under the load: never a mixture, never a crash, never a hang."""

from __future__ import annotations

import json
import os
from collections import deque
from typing import TYPE_CHECKING

import pytest
import torch

import fastload
from models import MIB, save_large, save_sharded
from writing import entry, shard_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaks_nothing")


def _shrink(path: Path) -> None:
    os.truncate(path, 20 * MIB)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def _rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(60 * MIB)
        file.write(b"x" * 1000)


@pytest.mark.parametrize("reader", ["auto", "direct", "buffered", "mmap"])
@pytest.mark.parametrize("change", [_grow, _replace])
def test_a_shard_that_changes_when_all_of_it_was_read(
    tmp_path: Path, reader: str, change: Callable[[Path], None]
) -> None:
    """What follows may be of another revision than what was read of it."""
    shards = {
        f"model-0000{n}-of-00003.safetensors": {f"{n}.{k}": torch.zeros(MIB) for k in range(4)} for n in (1, 2, 3)
    }
    save_sharded(tmp_path, shards)
    stream = fastload.stream(tmp_path, reader=reader, options=fastload.Options(staging_bytes=8 * MIB))
    while next(stream)[0] != "3.0":
        pass
    path = tmp_path / "model-00001-of-00003.safetensors"
    change(path)
    with pytest.raises(fastload.IntegrityError) as caught, stream:
        deque(stream, maxlen=0)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("reader", ["auto", "direct", "buffered", "mmap"])
@pytest.mark.parametrize("change", [_shrink, _grow, _replace, _rewrite])
def test_changed_file_is_an_integrity_error(tmp_path: Path, reader: str, change: Callable[[Path], None]) -> None:
    save_large(tmp_path)
    path = tmp_path / "model.safetensors"
    stream = fastload.stream(tmp_path, reader=reader, options=fastload.Options(staging_bytes=8 * MIB))
    if reader != "mmap":  # which reads ahead without a window, so that all of it may have been read by then
        next(stream)
    change(path)
    with pytest.raises(fastload.IntegrityError) as caught, stream:
        for _ in stream:
            pass
    assert caught.value.path == str(path)
    assert caught.value.offset >= 0
    assert caught.value.hint


@pytest.mark.parametrize("change", [_shrink, _grow, _replace, _rewrite])
def test_load_notices_too(tmp_path: Path, change: Callable[[Path], None]) -> None:
    save_large(tmp_path)
    changes = iter([change])

    def progress(_done: int, _total: int) -> None:
        for pending in changes:
            pending(tmp_path / "model.safetensors")

    with pytest.raises(fastload.IntegrityError):
        fastload.load(tmp_path, dtype="F32", progress=progress, options=fastload.Options(staging_bytes=4 * MIB))


def test_removed_file_is_read_to_its_end(tmp_path: Path) -> None:
    """Removing is not changing: what is open stays whole."""
    content = save_large(tmp_path)
    with fastload.stream(tmp_path, options=fastload.Options(staging_bytes=8 * MIB)) as stream:
        next(stream)
        (tmp_path / "model.safetensors").unlink()
        assert sum(1 for _ in stream) == len(content) - 1


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _misaligned(path: Path) -> Path:
    """Two large tensors that begin at an odd byte."""
    nbytes = 40 * MIB
    header = {name: entry("F64", [nbytes // 8], n * nbytes, (n + 1) * nbytes) for n, name in enumerate("ab")}
    raw = json.dumps(header).encode()
    path.write_bytes(shard_bytes(raw + b" " * (-len(raw) % 8 + 1), bytes(2 * nbytes)))
    return path


def _fill(path: Path, progress: Callable[[int, int], None]) -> None:
    module = torch.nn.Module()
    for name in "ab":
        module.register_buffer(name, torch.ones(5 * MIB, dtype=torch.float64))
    fastload.load_into(module, path, reader="mmap", progress=progress)


def _cast(path: Path, progress: Callable[[int, int], None]) -> None:
    fastload.load(path, reader="mmap", dtype="F32", progress=progress)


def _map(path: Path, progress: Callable[[int, int], None]) -> None:
    save_large(path.parent, 4, MIB)
    fastload.load(path, reader="mmap", progress=progress)


def _realign(path: Path, progress: Callable[[int, int], None]) -> None:
    fastload.load(path, reader="mmap", progress=progress)


@pytest.mark.parametrize("change", [_empty, _grow, _replace, _rewrite])
@pytest.mark.parametrize("load", [_map, _fill, _cast, _realign])
def test_a_mapped_file_is_looked_at_again_once_all_was_taken(
    tmp_path: Path, load: Callable[[Path, Callable[[int, int], None]], None], change: Callable[[Path], None]
) -> None:
    """All has been read when the file changes, and nothing has been taken: a copy would be a mixture, or a SIGBUS."""
    path = _misaligned(tmp_path / "model.safetensors")
    changes = iter([change])

    def progress(done_bytes: int, total_bytes: int) -> None:
        for pending in changes if done_bytes == total_bytes else ():
            pending(path)

    with pytest.raises(fastload.IntegrityError, match=r"model\.safetensors"):
        load(path, progress)
