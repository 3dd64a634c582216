"""What a manifest that is kept apart is asked for, and what it may not hide."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload._fetch.evidence.evidence import find_evidence
from fastload._store import folder_manifest, manifest_folder
from fastload._store.folder_manifest import find_folder_manifest
from fastload._store.folder_offer import list_named, offer_stored
from fastload._store.manifest_folder import ManifestFolder
from fastload._store.stored import PlainFolder
from fastload._tier import PATH
from fastload._verify.manifest import Manifest
from fastload.errors import FormatError, IntegrityError
from stored_models import model_files, write_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stored(tmp_path: Path) -> PlainFolder:
    """A plain folder, of which a manifest is kept apart and one was recorded beside it."""
    folder = write_folder(tmp_path / "model", model_files() | {"README.md": b"Hello."})
    fastload.verify(folder, record=True)
    plain = PlainFolder(tier=PATH, repo="org/name", commit=None, folder=str(folder), missing=())
    manifest = find_folder_manifest(plain.folder)
    assert isinstance(manifest, Manifest)
    kept_of(tmp_path).keep(plain, manifest, list_named(plain))
    return plain


def kept_of(tmp_path: Path) -> ManifestFolder:
    return ManifestFolder(str(tmp_path / "kept"))


def forget_record(stored: PlainFolder) -> None:
    shutil.rmtree(os.path.join(stored.folder, ".fastload"))


def break_kept(tmp_path: Path) -> None:
    (manifest,) = (path for path in (tmp_path / "kept").rglob("*.json") if ".stamp" not in path.name)
    manifest.write_text("{broken")


def test_a_malformed_one_that_is_not_needed_is_passed_over(stored: PlainFolder, tmp_path: Path) -> None:
    break_kept(tmp_path)
    (tmp_path / "model" / "README.md").write_text("edited")
    found = find_evidence(stored, manifests=kept_of(tmp_path))
    assert found.has_blocks
    assert "not needed" in str(found.passed_over)


def test_a_malformed_one_without_which_nothing_is_known_is_an_error(stored: PlainFolder, tmp_path: Path) -> None:
    forget_record(stored)
    break_kept(tmp_path)
    with pytest.raises(FormatError):
        find_evidence(stored, manifests=kept_of(tmp_path))


def test_weights_that_are_gone_are_missed_though_others_came_of_which_nothing_is_known(
    stored: PlainFolder, tmp_path: Path
) -> None:
    forget_record(stored)
    for path in (tmp_path / "model").glob("*.safetensors"):
        path.unlink()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"x" * 9)
    offer = offer_stored(stored, kept_of(tmp_path))
    lost = next(file for file in offer.files if file.path.endswith(".safetensors"))
    with pytest.raises(IntegrityError, match="no file"):
        offer.open(lost)


@pytest.mark.parametrize("where", ["apart", "beside"])
def test_what_was_swapped_after_it_was_looked_at_is_not_believed(
    stored: PlainFolder, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that a group shares, whoever renames two folders to and fro wins such a race now and then."""
    if os.geteuid():
        pytest.skip("only root may give files away")
    if where == "apart":
        forget_record(stored)
    for path in (tmp_path / ("kept" if where == "apart" else "model")).rglob("*.json"):
        os.chown(path, 65534, 65534)
    for room in (manifest_folder, folder_manifest):
        monkeypatch.setattr(room, "find_distrust", lambda _: None)
    with pytest.raises(FormatError, match="belongs to uid 65534"):
        find_evidence(stored, manifests=kept_of(tmp_path))
