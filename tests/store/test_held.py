"""What is held to two manifests: the one beside the files of a plain folder, and one that is kept apart."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload._fetch.find.at_path import stored_at
from fastload._store.folder_offer import list_named
from fastload._store.held import hold
from fastload._store.manifest_folder import ManifestFolder
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._tier import PATH
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.trust import KeptManifest
from stored_models import COMMIT, blob_name, model_files, write_cache, write_download_metadata, write_folder
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from pathlib import Path

    from fastload._store.offer import OfferedFile

pytest.importorskip("torch", reason="a load leaves the manifest that is kept apart")
SHARD = "model-00001-of-00002.safetensors"
LATER = "later.txt"
"""Nothing but the manifest that is kept apart knows it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A download, of which a load has kept a manifest apart, and whose owner has recorded all but ``LATER``."""
    files = model_files()
    folder = write_folder(tmp_path / "model", files)
    write_download_metadata(folder, COMMIT, files)
    fastload.verify(folder, record=True)
    (folder / LATER).write_text("so")
    keep_apart(folder)
    return folder


def keep_apart(folder: Path) -> None:
    """Have a load leave a manifest there, of all that is in ``folder``, as if none were beside it."""
    beside, manifests = folder.parent / "beside", folder.parent / "apart"
    (folder / ".fastload").rename(beside)
    shutil.rmtree(manifests, ignore_errors=True)
    fastload.load(folder, options=fastload.Options(manifests=str(manifests)))
    beside.rename(folder / ".fastload")


def stored_in(folder: Path) -> PlainFolder:
    return PlainFolder(tier=PATH, repo="model", commit=None, folder=str(folder), missing=())


def apart(folder: Path) -> ManifestFolder:
    return ManifestFolder(str(folder.parent / "apart"))


def hold_both(folder: Path) -> dict[str, OfferedFile]:
    stored = stored_in(folder)
    return {file.path: file for file in hold(stored, list_named(stored), EvidenceKind.ETAG, apart(folder)).files}


def test_what_the_one_beside_does_not_name_the_other_adds(folder: Path) -> None:
    held = hold_both(folder)
    assert all(file.blocks for file in held.values())
    assert held[LATER].blocks is not None


def test_of_what_both_name_the_one_beside_has_the_word(folder: Path) -> None:
    before, stored = hold_both(folder), stored_in(folder)
    kept = apart(folder).find(stored)
    assert isinstance(kept, KeptManifest)
    files = tuple(replace(f, blocks=("0" * 64,)) if f.path == SHARD else f for f in kept.manifest.files)
    apart(folder).keep(stored, replace(kept.manifest, files=files), list_named(stored))
    assert hold_both(folder) == before


def test_what_an_owner_has_recorded_he_may_have_meant_whatever_is_kept_apart(folder: Path) -> None:
    stored = stored_in(folder)
    assert hold(stored, list_named(stored), EvidenceKind.ETAG, apart(folder)).may_be_meant


def test_a_file_has_the_time_that_it_has_now_and_every_digest_that_anybody_knows(folder: Path) -> None:
    held = hold_both(folder)
    assert {path: file.mtime_ns for path, file in held.items()} == {
        path: (folder / path).stat().st_mtime_ns for path in held
    }
    files = model_files()
    assert held["config.json"].git_sha1 == blob_name("config.json", files["config.json"])
    assert held[SHARD].sha256 == blob_name(SHARD, files[SHARD])


def test_what_was_recorded_is_known_by_it_where_no_note_is_left_and_by_notes_that_came_later(tmp_path: Path) -> None:
    files = model_files()
    folder, name = write_folder(tmp_path / "model", files), "config.json"
    write_download_metadata(folder, COMMIT, files)
    fastload.verify(folder, record=True)
    shutil.rmtree(folder / ".cache")
    assert hold_both(folder)[name].git_sha1 == blob_name(name, files[name])
    shutil.rmtree(folder / ".fastload")
    fastload.verify(folder, record=True)
    assert hold_both(folder)[name].git_sha1 is None
    write_download_metadata(folder, COMMIT, files)
    assert hold_both(folder)[name].git_sha1 == blob_name(name, files[name])


def test_evidence_of_all_is_what_all_are_known_by(folder: Path) -> None:
    stored = stored_in(folder)
    assert hold(stored, list_named(stored), EvidenceKind.ETAG).evidence is EvidenceKind.ETAG  # not of LATER
    (folder / LATER).unlink()
    assert hold(stored, list_named(stored), EvidenceKind.ETAG).evidence is EvidenceKind.RECORDED


@pytest.mark.parametrize("has_index", [True, False])
def test_a_shard_that_was_not_recorded_would_be_loaded_where_no_index_says_which_are(
    tmp_path: Path,
    has_index: bool,  # noqa: FBT001 - a case
) -> None:
    folder = write_folder(tmp_path / "model", model_files())
    if not has_index:
        (folder / INDEX_NAME).unlink()
    fastload.verify(folder, record=True)
    write_folder(folder, {LATER: b"so", "more.safetensors": one_tensor(), "part/more.safetensors": one_tensor()})
    stored = stored_in(folder)
    unnamed = hold(stored, list_named(stored), EvidenceKind.NONE).unnamed
    assert unnamed == {"part/more.safetensors", *([] if has_index else ["more.safetensors"])}


def test_where_weights_were_written_since_others_may_have_been_added_too(folder: Path) -> None:
    (folder / INDEX_NAME).unlink()
    fastload.verify(folder, record=True)
    os.utime(folder / SHARD, ns=(0, 0))
    write_folder(folder, {"more.safetensors": one_tensor()})
    stored = stored_in(folder)
    assert hold(stored, list_named(stored), EvidenceKind.NONE).unnamed == frozenset()


def test_which_files_there_should_be_the_one_beside_says_alone(folder: Path) -> None:
    more = write_folder(folder, {"part/config.json": b"{}"}) / "part/config.json"
    keep_apart(folder)
    assert hold_both(folder)["part/config.json"].blocks is not None
    more.unlink()
    assert "part/config.json" not in hold_both(folder)


def test_in_a_cache_the_tier_says_which_files_there_are_and_no_manifest_that_is_kept_apart(tmp_path: Path) -> None:
    folder = write_cache(tmp_path / "hub", "org/name", COMMIT, model_files())
    fastload.load(folder, options=fastload.Options(manifests=str(tmp_path / "apart")))
    (folder / "config.json").unlink()
    stored = stored_at(str(folder))
    assert isinstance(stored, CachedSnapshot)
    held = hold(stored, list_named(stored), EvidenceKind.SHA256, ManifestFolder(str(tmp_path / "apart")))
    assert all(file.blocks is not None for file in held.files)
    assert (held.evidence, held.may_be_meant) == (EvidenceKind.MANIFEST, False)
    assert "config.json" not in {file.path for file in held.files}
