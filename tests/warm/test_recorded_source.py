"""What was recorded of a plain folder is what ``warm`` and write-through hold its files to, as a load does."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import fastload
from fastload import IntegrityError, Options
from fastload._fetch.find.at_path import stored_at
from fastload._store.listing import list_files
from fastload._store.manifest_folder import ManifestFolder
from fastload._verify.manifest import parse_manifest
from proven_models import flip
from stored_models import COMMIT, model_files, write_cache, write_download_metadata, write_folder
from writing import INDEX_NAME, one_tensor, pack

SHARD = "model-00001-of-00002.safetensors"
LATER_NS = 100 * 10**9


@pytest.fixture
def options(tmp_path: Path) -> Options:
    local, shared = str(tmp_path / "local"), str(tmp_path / "shared")
    return Options(local=local, shared=shared, tiers=("local", "shared"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "shared" / "name", model_files())


@pytest.fixture(params=["beside", "apart"])
def recorded(folder: Path, options: Options, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Options]:
    """A folder on the mount, and the options by which the record of it is found."""
    fastload.verify(folder, record=True, options=options)
    return (folder, options) if request.param == "beside" else move_apart(folder, options, tmp_path / "manifests")


def move_apart(folder: Path, options: Options, manifests: Path) -> tuple[Path, Options]:
    """As if the folder could not be written when it was recorded."""
    (beside,) = (folder / ".fastload/manifests").iterdir()
    manifest = parse_manifest(beside.read_bytes(), path=str(beside))
    shutil.rmtree(folder / ".fastload")
    stored = stored_at(str(folder))
    assert stored is not None
    ManifestFolder(str(manifests)).keep(stored, manifest, list_files(str(folder)))
    return folder, replace(options, manifests=str(manifests))


def age(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + LATER_NS))


@pytest.mark.parametrize(("name", "at"), [(SHARD, 100), (INDEX_NAME, 3), ("config.json", 3)])
def test_what_changed_under_the_same_mtime_is_not_published(
    recorded: tuple[Path, Options], name: str, at: int, tmp_path: Path
) -> None:
    folder, options = recorded
    flip(folder / name, at)
    for model in ("name", folder):
        with pytest.raises(IntegrityError, match=name):
            fastload.warm(model, options=options)
    assert not any((tmp_path / "local").glob("models--*/snapshots/*"))


def test_what_is_as_it_was_recorded_is_brought_and_said_to_be(recorded: tuple[Path, Options]) -> None:
    _, options = recorded
    report = fastload.warm("name", options=options).report
    assert report is not None
    assert report.evidence == "manifest (recorded)"
    assert "what was recorded of the folder" in report.evidence_reason
    assert fastload.load("name", verify="require", options=options).report.tier == "local"


def test_what_was_written_later_is_brought_as_it_is_and_is_unknown(recorded: tuple[Path, Options]) -> None:
    folder, options = recorded
    (folder / "config.json").write_bytes(b'{"seed": 7}')
    age(folder / "config.json")
    snapshot = fastload.warm("name", options=options)
    assert snapshot.report is not None and snapshot.report.evidence == "none"
    assert "no digest of 'config.json'" in snapshot.report.evidence_reason
    assert Path(snapshot.path, "config.json").read_bytes() == b'{"seed": 7}'


def test_one_that_was_cut_short_is_not_published(folder: Path, options: Options) -> None:
    fastload.verify(folder, record=True, options=options)
    status = (folder / "config.json").stat()
    os.truncate(folder / "config.json", 4)
    os.utime(folder / "config.json", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(IntegrityError, match=r"config\.json.*4 bytes"):
        fastload.warm("name", options=options)


def test_a_copy_on_the_way_of_a_load_is_held_to_it_too(recorded: tuple[Path, Options], tmp_path: Path) -> None:
    """The load reads no tokenizer; the copy does."""
    folder, options = recorded
    flip(folder / "tokenizer.json", 3)
    fastload.load("name", options=options)
    assert not any((tmp_path / "local").glob("models--*/snapshots/*"))


FLOATS = pack({"w": ("F32", [1], bytes(4))})
PARTS = {"part-a.safetensors": one_tensor("a"), "part-b.safetensors": one_tensor("b"), "config.json": b"{}"}
"""Two shards, and no index that names them."""


@pytest.mark.parametrize("place", ["beside", "apart"])
def test_a_shard_that_is_gone_is_missed_as_by_a_load(place: str, options: Options, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shared" / "parts", PARTS)
    fastload.verify(folder, record=True, options=options)
    if place == "apart":
        folder, options = move_apart(folder, options, tmp_path / "manifests")
    (folder / "part-b.safetensors").unlink()
    for run in (fastload.load, fastload.warm):
        with pytest.raises(IntegrityError, match=r"part-b\.safetensors.*no file") as caught:
            run(folder, options=options)
        assert "--record" in caught.value.hint
    assert not any((tmp_path / "local").glob("models--*/snapshots/*"))
    assert "part-a.safetensors" in os.listdir(fastload.warm(folder, exclude="part-b*", options=options).path)
    assert fastload.verify(folder, record=True, options=options).recorded
    assert fastload.warm(folder, options=options).report is not None


def test_of_a_download_that_a_load_has_kept_apart_a_shard_that_is_gone_may_be_meant_to_be(
    options: Options, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "shared" / "parts", PARTS)
    write_download_metadata(folder, COMMIT, PARTS)
    options = replace(options, manifests=str(tmp_path / "manifests"))
    assert [fastload.load(folder, options=options).report.evidence for _ in range(2)] == ["etag", "manifest"]
    (folder / "part-b.safetensors").unlink()
    for run in (fastload.load, fastload.warm):
        with pytest.raises(IntegrityError, match=r"part-b\.safetensors.*no file") as caught:
            run(folder, options=options)
        assert "--record" in caught.value.hint


def test_a_shard_that_was_added_is_refused_as_by_a_load(options: Options, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shared" / "parts", PARTS)
    fastload.verify(folder, record=True, options=options)
    write_folder(folder, {"part-c.safetensors": one_tensor("c")})
    for run in (fastload.load, fastload.warm):
        with pytest.raises(IntegrityError, match=r"part-c\.safetensors.*does not name") as caught:
            run(folder, options=options)
        assert "--record" in caught.value.hint
    assert not any((tmp_path / "local").glob("models--*/snapshots/*"))


def test_an_index_that_was_written_anew_says_which_shards_there_are(folder: Path, options: Options) -> None:
    fastload.verify(folder, record=True, options=options)
    write_folder(folder, {"whole.safetensors": one_tensor(), INDEX_NAME: b'{"weight_map": {"a": "whole.safetensors"}}'})
    age(folder / INDEX_NAME)
    for shard in folder.glob("model-*"):
        shard.unlink()
    assert len(fastload.load(folder, options=options)) == 1
    report = fastload.warm("name", options=options).report
    assert report is not None and report.evidence == "none"


def test_what_people_read_may_be_edited_where_times_tell_nothing(folder: Path, options: Options) -> None:
    """Copied without its times, as by ``s3 sync``: nobody can say what was written since."""
    write_folder(folder, {"README.md": b"hello"})
    fastload.verify(folder, record=True, options=options)
    for path in folder.rglob("*"):
        age(path)
    (folder / "README.md").write_bytes(b"hello, edited")
    snapshot = fastload.warm("name", options=options)
    assert Path(snapshot.path, "README.md").read_bytes() == b"hello, edited"
    flip(folder / SHARD, 100)
    with pytest.raises(IntegrityError, match=SHARD):
        fastload.warm(folder, options=replace(options, local=f"{options.local}-other"))


def test_a_manifest_that_a_newer_download_contradicts_is_not_believed(folder: Path, options: Options) -> None:
    fastload.verify(folder, record=True, options=options)
    newer = model_files(seed=1)
    write_folder(folder, newer)
    write_download_metadata(folder, COMMIT, newer)
    snapshot = fastload.warm(folder, options=options)
    assert snapshot.report is not None and snapshot.report.evidence == "etag"


@pytest.mark.parametrize("place", ["beside", "apart"])
def test_a_config_that_is_gone_is_missed_as_by_a_load_that_goes_by_it(
    place: str, options: Options, tmp_path: Path
) -> None:
    """Without it a quantised model looks like another one: a copy that lacks it would be cast."""
    files = {"model.safetensors": FLOATS, "config.json": b'{"quantization_config": {}}'}
    folder = write_folder(tmp_path / "shared" / "name", files)
    fastload.verify(folder, record=True, options=options)
    if place == "apart":
        folder, options = move_apart(folder, options, tmp_path / "manifests")
    (folder / "config.json").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json.*no file"):
        fastload.load(folder, dtype="F16", options=options)
    with pytest.raises(IntegrityError, match=r"config\.json.*no file") as caught:
        fastload.warm("name", options=options)
    assert "--record" in caught.value.hint
    assert "config.json" not in os.listdir(fastload.warm("name", exclude="config.json", options=options).path)


def test_what_a_load_of_a_mount_has_proven_and_kept_apart_is_no_record_of_its_owner(
    options: Options, tmp_path: Path
) -> None:
    """The names of the blobs said the same: the copy is proven by as much as the next load is."""
    write_cache(tmp_path / "shared", "org/name", COMMIT, model_files())
    options = replace(options, manifests=str(tmp_path / "manifests"))
    on_mount = replace(options, tiers=("shared",))
    assert [fastload.load("org/name", options=on_mount).report.evidence for _ in range(2)] == ["sha256", "manifest"]
    report = fastload.warm("org/name", options=options).report
    assert report is not None and report.evidence == "manifest"
