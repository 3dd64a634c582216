"""Files that are whole and well-formed, and not the ones that belong there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import FormatError, IntegrityError, Options
from hub_faults import WrongBytes
from hub_server import HubServer, Repo
from models import MIB, assert_same
from proven_models import PLACES, READERS, REPO, Model
from stored_models import (
    COMMIT,
    OTHER_COMMIT,
    blob_name,
    write_cache,
    write_download_metadata,
    write_folder,
    write_tree,
)
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def overwrite(path: Path, content: bytes) -> None:
    """Other content in the same inode, with the mtime of before."""
    status = path.stat()
    path.resolve().write_bytes(content)
    os.utime(path.resolve(), ns=(status.st_atime_ns, status.st_mtime_ns))


def refused(folder: Path) -> set[str]:
    """The files that every reader refuses."""
    paths = set()
    for reader in READERS:
        with pytest.raises(IntegrityError) as caught:
            fastload.load(folder, reader=reader)
        paths.add(os.path.basename(caught.value.path))
    return paths


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("by", ["names", "content"])
def test_two_shards_that_changed_places(model: Model, kind: str, by: str) -> None:
    folder = PLACES[kind](model)
    one, two = (folder / name for name in NAMES)
    assert one.stat().st_size == two.stat().st_size  # so that no size betrays it
    if by == "names":
        aside = one.rename(folder / "aside")
        two.rename(one)
        aside.rename(two)
    else:
        contents = one.read_bytes(), two.read_bytes()
        overwrite(one, contents[1])
        overwrite(two, contents[0])
    if (kind, by) == ("sha256", "names"):
        # Each link leads to a blob that is what it is called; only the headers, which are proven, contradict the index.
        with pytest.raises(FormatError, match="different revisions"):
            fastload.load(folder)
        return
    assert refused(folder) <= set(NAMES)


@pytest.mark.parametrize("kind", PLACES)
def test_a_shard_of_another_revision(model: Model, kind: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Model(tmp_path / "other", seed=2).files[NAMES[1]]
    folder = PLACES[kind](model)
    assert len(other) == len(model.files[NAMES[1]])
    overwrite(folder / NAMES[1], other)
    assert refused(folder) == {NAMES[1]}


@pytest.mark.parametrize("kind", PLACES)
def test_a_hole(model: Model, kind: str) -> None:
    folder = PLACES[kind](model)
    path, whole = folder / NAMES[0], model.files[NAMES[0]]
    status = path.stat()
    os.truncate(path, 9 * MIB // 2)
    os.truncate(path, len(whole))
    os.utime(path.resolve(), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_blocks * 512 < len(whole)
    assert refused(folder) == {NAMES[0]}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("what", ["leaves a tensor out", "says something else"])
def test_an_index_that_is_another_one_is_not_believed(model: Model, kind: str, what: str) -> None:
    folder = PLACES[kind](model)
    index = json.loads(model.files[INDEX_NAME])
    if what == "leaves a tensor out":
        del index["weight_map"]["2.4"]
    else:
        index["metadata"] = {"total_size": 1}
    overwrite(folder / INDEX_NAME, json.dumps(index).encode())
    assert refused(folder) == {INDEX_NAME}


def test_an_index_that_is_damaged_is_mended_like_a_shard(model: Model) -> None:
    index = model.warmed() / INDEX_NAME
    overwrite(index, model.files[INDEX_NAME].replace(b"weight_map", b"weight-map"))
    weights = fastload.load(REPO, options=model.options)
    assert_same(weights, model.tensors)
    assert weights.report.blocks_repaired == 1
    assert index.read_bytes() == model.files[INDEX_NAME]


def test_an_index_from_the_hub_is_held_to_the_listing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    where = model.files[INDEX_NAME].index(b"{") + 2
    with HubServer({REPO: Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = Options(local=str(model.local), write_through="off")
        assert fastload.load(REPO, options=options).report.evidence == "listing"
        hub.faults.add(WrongBytes(where), path=f"*{INDEX_NAME}", times=None)
        with pytest.raises(IntegrityError, match=INDEX_NAME):
            fastload.load(REPO, options=options)


def from_hub(files: dict[str, bytes], local: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tensors of a repository of these files."""
    with HubServer({REPO: Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        return [*fastload.load(REPO, options=Options(local=str(local), tiers="local,hub", write_through="off"))]


def indexed(**shard_of: str) -> dict[str, bytes]:
    """A repository whose index says so, with two shards of one tensor each, ``a`` and ``b``."""
    return {
        "config.json": b"{}",
        INDEX_NAME: json.dumps({"weight_map": shard_of}).encode(),
        "x.safetensors": one_tensor("a"),
        "sub/y.safetensors": one_tensor("b"),
    }


def test_a_repository_that_lacks_a_shard_is_told_with_what_is_missed_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FormatError) as caught:
        from_hub(indexed(a="x.safetensors", d="gone.safetensors", c="gone.safetensors"), tmp_path, monkeypatch)
    error = caught.value
    assert (error.path, error.tensor, error.found) == ("gone.safetensors", "d", "no file")
    assert f"'{INDEX_NAME}' names it for 'd' and 1 more tensor" in error.expected
    assert "another revision" in error.hint


def test_a_shard_that_the_index_of_a_repository_leaves_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FormatError, match=r"beside it, and not named: 'x\.safetensors'"):
        from_hub(indexed(b="sub/y.safetensors", a="sub/y.safetensors"), tmp_path, monkeypatch)


def test_a_shard_may_lie_in_a_folder_of_the_repository_as_it_may_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert from_hub(indexed(a="x.safetensors", b="sub/y.safetensors"), tmp_path, monkeypatch) == ["b", "a"]


def test_verify_names_what_is_missed_of_a_shard_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(one_tensor("a"))
    (tmp_path / INDEX_NAME).write_bytes(
        indexed(a="x.safetensors", d="gone.safetensors", c="gone.safetensors")[INDEX_NAME]
    )
    with pytest.raises((IntegrityError, FormatError)) as caught:
        fastload.verify(tmp_path)
    assert "'gone.safetensors'" in str(caught.value)
    assert "'d' and 1 more tensor" in str(caught.value)


def _with_a_blob_of_another_revision(model: Model, tmp_path: Path) -> Path:
    """One link leads to a blob that is right by its own name, and not the one that the listing of this commit names."""
    (tmp_path / "other").mkdir()
    other = Model(tmp_path / "other", seed=2).files[NAMES[1]]
    folder = model.cached()
    write_tree(folder, model.files)
    blob = folder.parent.parent / "blobs" / blob_name(NAMES[1], other)
    blob.write_bytes(other)
    (folder / NAMES[1]).unlink()
    (folder / NAMES[1]).symlink_to(os.path.relpath(blob, folder))
    return folder


def test_a_link_to_another_revisions_blob_contradicts_the_listing(model: Model, tmp_path: Path) -> None:
    folder = _with_a_blob_of_another_revision(model, tmp_path)
    assert refused(folder) == {NAMES[1]}
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(folder, record=True)
    assert [finding.path for finding in caught.value.findings] == [NAMES[1]]


def test_it_is_mended_by_whoever_has_the_right_one(model: Model, tmp_path: Path) -> None:
    folder = _with_a_blob_of_another_revision(model, tmp_path)
    write_cache(model.shared, REPO, COMMIT, model.files)
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert [(finding.path, finding.repaired) for finding in found.findings] == [(NAMES[1], True)]
    assert_same(fastload.load(folder, verify="require"), model.tensors)


@pytest.mark.parametrize("is_later", [True, False])
def test_a_newer_download_is_no_damage_of_what_was_recorded(
    model: Model,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    is_later: bool,  # noqa: FBT001 - a case
) -> None:
    """The etags are of the newer files, the manifest of the older ones: it is not believed, and can be made anew.

    Whatever times say: a tool may have set them to what they were.
    """
    (tmp_path / "other").mkdir()
    newer = Model(tmp_path / "other", seed=2)
    folder = model.downloaded()
    fastload.verify(folder, record=True)
    recorded_ns = {name: (folder / name).stat().st_mtime_ns for name in newer.files}
    write_folder(folder, newer.files)
    write_download_metadata(folder, OTHER_COMMIT, newer.files)
    for name, time_ns in recorded_ns.items():
        if not is_later:
            os.utime(folder / name, ns=(time_ns, time_ns))
    weights = fastload.load(folder, verify="require")
    assert_same(weights, newer.tensors)
    assert weights.report.evidence == "etag"
    assert "fastload verify" in caplog.text
    assert fastload.verify(folder, record=True).recorded
    weights = fastload.load(folder, verify="require")
    assert_same(weights, newer.tensors)
    assert weights.report.evidence == "manifest (recorded)"


def test_verify_that_requires_evidence_wants_some(model: Model) -> None:
    folder = write_folder(model.local.parent / "bare", model.files)
    with pytest.raises(IntegrityError, match="require"):
        fastload.verify(folder, options=Options(verify="require"))
    assert fastload.verify(folder).evidence == "none"
    assert fastload.verify(folder, record=True, options=Options(verify="require")).recorded


@pytest.mark.parametrize("kind", ["sha256", "etag"])
def test_weights_beside_that_nobody_knows_take_no_proof_from_those_that_are_loaded(model: Model, kind: str) -> None:
    folder = PLACES[kind](model)
    (folder / "adapter_model.safetensors").write_bytes(one_tensor())
    weights = fastload.load(folder, verify="require")
    assert_same(weights, model.tensors)
    assert weights.report.evidence == kind
    with pytest.raises(IntegrityError, match="nothing is known of the bytes"):
        fastload.load(folder / "adapter_model.safetensors", verify="require")
