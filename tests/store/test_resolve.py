"""What is said of a path: where it is, and whether what a load takes of it is whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import FormatError, ModelNotFoundError
from stored_models import model_files, write_folder
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from collections.abc import Callable

SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", model_files())


def test_a_whole_folder_is_complete_by_each_of_its_paths(folder: Path) -> None:
    for path in (folder, folder / INDEX_NAME, folder / SHARD):
        found = fastload.resolve(path)
        assert (found.path, found.repo, found.commit, found.tier) == (str(folder), None, None, "path")
        assert found.complete


def test_a_folder_below_that_cannot_be_looked_at_is_in_nobodys_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``lost+found`` at the root of a volume."""
    (folder / "lost+found").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).rstrip("/").endswith("lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = fastload.resolve(folder)
    assert (found.path, found.complete) == (str(folder), False)


_INSTEAD: dict[str, Callable[[Path], object]] = {
    "an empty file": Path.touch,
    "one cut short": lambda shard: shard.write_bytes(model_files()[SHARD][:-1]),
    "nothing": str,
    "a folder": Path.mkdir,
    "a named pipe": os.mkfifo,
    "a dangling link": lambda shard: shard.symlink_to("nowhere"),
}


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("instead", _INSTEAD)
def test_a_folder_is_no_checkpoint_where_a_shard_is_not_whole(
    folder: Path,
    instead: str,
    with_index: bool,  # noqa: FBT001 - a case
) -> None:
    if not with_index:
        (folder / INDEX_NAME).unlink()
    (folder / SHARD).unlink()
    _INSTEAD[instead](folder / SHARD)
    for look in (fastload.resolve, fastload.load):
        with pytest.raises(FormatError):
            look(folder)
    if os.path.isfile(folder / SHARD):
        with pytest.raises(FormatError, match=SHARD):
            fastload.resolve(folder / SHARD)
    assert fastload.resolve(folder / SHARD.replace("2-of", "1-of")).complete


def test_a_folder_into_which_something_is_being_brought_is_not_complete(folder: Path) -> None:
    (folder / f"{SHARD}.aria2").touch()
    assert not fastload.resolve(folder).complete
    assert fastload.resolve(folder / SHARD).complete
    (folder / f"{SHARD}.aria2").unlink()
    write_folder(folder / "unet", {"a-00001-of-00002.safetensors": one_tensor()})
    assert not fastload.resolve(folder).complete


def test_a_path_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        fastload.resolve(tmp_path / "nothing")
