"""Manifests beside the weights that are malformed, or say what cannot be: none is believed, and each is named."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from fastload import FormatError, IntegrityError
from fastload._verify.digest import block_digest
from fastload._verify.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ManifestFile,
    dump_manifest,
    parse_manifest,
    plain_commit,
)
from fastload._verify.trust import RECORDED
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from stored_models import COMMIT, OTHER_COMMIT
from writing import INDEX_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Change = Callable[[Manifest], Manifest]

SHARD = "model-00001-of-00002.safetensors"
OTHER_SHARD = "model-00002-of-00002.safetensors"
PLACES = {"cache": Model.warmed, "plain folder": Model.recorded}


def manifest_of(folder: Path) -> Path:
    top = folder if (folder / ".fastload").exists() else folder.parent.parent
    (path,) = (top / ".fastload/manifests").iterdir()
    return path


def rewrite(folder: Path, change: Change) -> None:
    path = manifest_of(folder)
    manifest = parse_manifest(path.read_bytes(), path=str(path))
    changed = change(manifest)
    if manifest.source == RECORDED and changed.commit == manifest.commit:  # whoever lies well names what he lists
        changed = replace(changed, commit=plain_commit(changed.files))
    path.write_bytes(dump_manifest(changed))


def with_file(path: str, **changes: Any) -> Change:
    def change(manifest: Manifest) -> Manifest:
        files = (replace(file, **changes) if file.path == path else file for file in manifest.files)
        return replace(manifest, files=tuple(files))

    return change


def with_more(manifest: Manifest) -> Manifest:
    more = ManifestFile("model-00003-of-00003.safetensors", 5, "ab" * 32, None, ("cd" * 32,))
    return replace(manifest, files=tuple(sorted((*manifest.files, more), key=lambda file: file.path)))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.replace(b'"size":2', b'"size":9000002', 1), "blocks"),
        (lambda raw: raw.replace(b'"blocks":["', b'"blocks":["AB', 1), "a block"),
        (lambda raw: raw.replace(b'"sha256":"', b'"sha256":"x', 1), "sha256"),
        (lambda raw: raw.replace(b'"path":"config', b'"path":"../config', 1), "plain and relative"),
        (lambda raw: raw.replace(b'"path":"config', b'"path":"/config', 1), "plain and relative"),
        (lambda raw: raw.replace(b'"path":"config', b'"path":".fastload/config', 1), "own files"),
        (lambda raw: raw.replace(b'"schema":1', b'"schema":1,"schema":1', 1), "JSON"),
        (lambda raw: raw.replace(b'"path":"model-00002', b'"path":"model-00001', 1), "after"),
        (lambda raw: raw + b"\n", "spelling"),
        (lambda raw: raw[: len(raw) // 2], "JSON"),
        (lambda _: b" " * (MAX_MANIFEST_BYTES + 1), "at most"),
    ],
    ids=["size", "hex", "sha256", "outside", "absolute", "ours", "key twice", "file twice", "spelling", "cut", "huge"],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_by_name(
    model: Model, place: str, change: Callable[[bytes], bytes], said: str
) -> None:
    folder = PLACES[place](model)
    path = manifest_of(folder)
    raw = path.read_bytes()
    path.write_bytes(change(raw))
    assert path.read_bytes() != raw
    for run in (fastload.load, fastload.verify):
        with pytest.raises(FormatError) as caught:
            run(folder)
        assert caught.value.path == str(path)
        assert said in str(caught.value)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "change",
    [
        with_file(SHARD, size=6 * MIB),
        with_file(SHARD, size=8 * MIB),
        with_file(SHARD, blocks=("ab" * 32,) * 2),
        with_file(INDEX_NAME, blocks=("ab" * 32,)),
    ],
    ids=["another size", "a whole block", "other blocks", "another index"],
)
def test_what_contradicts_the_files_is_damage_of_theirs(model: Model, place: str, change: Change) -> None:
    folder = PLACES[place](model)
    rewrite(folder, change)
    with pytest.raises(IntegrityError) as caught:
        fastload.load(folder)
    assert os.path.basename(caught.value.path) in {SHARD, INDEX_NAME}
    with pytest.raises(IntegrityError):
        fastload.verify(folder)


@pytest.mark.parametrize("place", PLACES)
def test_weights_that_it_names_and_nobody_has(model: Model, place: str) -> None:
    folder = PLACES[place](model)
    rewrite(folder, with_more)
    assert_same(fastload.load(folder), model.tensors)  # an index says which shards there are
    with pytest.raises(IntegrityError, match="no file") as caught:
        fastload.verify(folder)
    assert [finding.path for finding in caught.value.findings] == ["model-00003-of-00003.safetensors"]


@pytest.mark.parametrize("place", PLACES)
def test_a_shard_that_it_leaves_out(model: Model, place: str) -> None:
    folder = PLACES[place](model)
    rewrite(folder, lambda m: replace(m, files=tuple(file for file in m.files if file.path != SHARD)))
    flip(folder / SHARD, 5 * MIB)
    said = "sha256" if place == "cache" else "does not name"  # the name of the blob is evidence too
    with pytest.raises(IntegrityError, match=said):
        fastload.load(folder)


def lie(model: Model, folder: Path) -> None:
    """The content, the manifest and its digests are another's; only the name of the blob is what it was."""
    evil = bytearray(model.files[SHARD])
    evil[5 * MIB] ^= 1
    (folder / SHARD).resolve().write_bytes(evil)
    import hashlib

    blocks = tuple(block_digest(evil[at : at + 4 * MIB]) for at in range(0, len(evil), 4 * MIB))
    rewrite(folder, with_file(SHARD, sha256=hashlib.sha256(evil).hexdigest(), blocks=blocks, git_sha1=None))


def test_one_that_contradicts_the_name_of_a_blob_is_not_believed(model: Model) -> None:
    folder = model.warmed()
    lie(model, folder)
    for tensors in (None, "1.0"):
        with pytest.raises(IntegrityError, match="a link to the blob") as caught:
            fastload.load(folder, tensors=tensors)
        assert caught.value.path == str(folder / SHARD)
    with pytest.raises(IntegrityError) as found:
        fastload.verify(REPO, options=model.options)
    assert [finding.path for finding in found.value.findings] == [SHARD]


def test_links_that_changed_places_are_mended_and_no_blob_gets_what_it_is_not_called_by(model: Model) -> None:
    folder = model.warmed()
    one, two = folder / SHARD, folder / OTHER_SHARD
    blobs = one.resolve(), two.resolve()
    aside = one.rename(folder / "aside")
    two.rename(one)
    aside.rename(two)
    with pytest.raises(IntegrityError, match="a link to the blob"):
        fastload.load(REPO, options=model.options)
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert [(finding.path, finding.repaired) for finding in found.findings] == [(SHARD, True), (OTHER_SHARD, True)]
    assert (one.resolve(), two.resolve()) == blobs
    assert [one.read_bytes(), two.read_bytes()] == [model.files[SHARD], model.files[OTHER_SHARD]]
    assert_same(fastload.load(REPO, options=model.options), model.tensors)


@pytest.mark.parametrize("verify", ["auto", "require"])
def test_one_of_another_commit_does_not_make_that_commit_this_one(model: Model, verify: str) -> None:
    """The attack: all of another commit, under the name of the one that is asked for."""
    folder = model.warmed()
    asked = folder.with_name(OTHER_COMMIT)
    shutil.copytree(folder, asked, symlinks=True)
    manifest = manifest_of(folder)
    beside = manifest.with_name(f"{OTHER_COMMIT}.json")
    shutil.copyfile(manifest, beside)
    name = f"{REPO}@{OTHER_COMMIT}"
    for run in (
        lambda: fastload.load(name, options=model.options, verify=verify),
        lambda: fastload.load(asked, options=model.options, verify=verify),
        lambda: fastload.verify(name, options=model.options),
    ):
        with pytest.raises(FormatError, match=f"commit '{COMMIT}'.*{OTHER_COMMIT}") as caught:
            run()
        assert caught.value.path == str(beside)
        assert "--record" in caught.value.hint
    assert_same(fastload.load(REPO, options=model.options, verify="require"), model.tensors)
    beside.unlink()
    assert fastload.load(asked, options=model.options).report.evidence == "sha256"


def test_one_of_another_repo_is_not_believed_of_this_one(model: Model) -> None:
    folder = model.warmed()
    rewrite(folder, lambda manifest: replace(manifest, repo="org/other"))
    for run in (fastload.load, fastload.verify):
        with pytest.raises(FormatError, match=r"repo 'org/other'.*models--org--name") as caught:
            run(folder)
        assert caught.value.path == str(manifest_of(folder))
    done = fastload.warm(REPO, options=model.options)
    assert_same(fastload.load(done.path, verify="require"), model.tensors)


def test_a_repo_that_a_link_leads_to_keeps_its_manifest(model: Model) -> None:
    repo = model.warmed().parent.parent
    repo.with_name("models--org--alias").symlink_to(repo.name)
    alias = replace(model.options, tiers=("local",))
    assert fastload.load("org/alias", options=alias, revision=COMMIT, verify="require").report.evidence == "manifest"


def test_a_recorded_folder_is_believed_wherever_it_is_moved(model: Model) -> None:
    folder = model.recorded()
    moved = folder.rename(folder.with_name("moved"))
    assert fastload.load(moved, verify="require").report.evidence == "manifest (recorded)"
    rewrite(moved, lambda manifest: replace(manifest, commit=OTHER_COMMIT))
    with pytest.raises(FormatError, match=OTHER_COMMIT) as caught:
        fastload.load(moved)
    assert caught.value.path == str(manifest_of(moved))
