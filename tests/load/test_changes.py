"""Files that change under the load: never a mixture, never a crash, never a hang."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import fastload
from models import MIB, save_large

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
