"""A plain folder is its owner's: what he has written since it was recorded is another file, and no damage."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import FormatError, IntegrityError, Options
from fastload.cli import main
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from stored_models import COMMIT, write_download_metadata, write_folder
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from pathlib import Path

SHARD, OTHER_SHARD = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LATER_S = 100


@pytest.fixture
def newer(tmp_path: Path) -> Model:
    """The same names and sizes, other weights."""
    (tmp_path / "newer").mkdir()
    return Model(tmp_path / "newer", seed=2)


def write_later(folder: Path, files: dict[str, bytes]) -> None:
    """Written in place, with a later mtime."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
        age(folder / name)


def age(path: Path) -> None:
    """An mtime that no rounding takes for the one before."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + LATER_S * 10**9))


def write_timed_metadata(folder: Path, files: dict[str, bytes]) -> None:
    """As ``hf download --local-dir`` does, which notes when it did."""
    write_download_metadata(folder, COMMIT, files)
    for path in (folder / ".cache").rglob("*.metadata"):
        path.write_text(path.read_text().replace("1.0", str(time.time())))


def test_weights_that_were_trained_again_are_not_taken_for_damage(
    model: Model, newer: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """An older copy of that name is on a mount: it neither serves the load nor replaces the new weights."""
    folder = write_folder(model.local.parent / "scratch" / "llama", model.files)
    write_folder(model.shared / "llama", model.files)
    assert fastload.verify(folder, record=True).recorded
    write_later(folder, newer.files)
    weights = fastload.load(folder, options=model.options)
    assert_same(weights, newer.tensors)
    assert weights.report.evidence == "none"
    (said,) = {record.getMessage() for record in caplog.records}
    assert "(and 3 more) was written after it was recorded" in said and "--record" in said
    with pytest.raises(IntegrityError, match="nothing is known"):
        fastload.load(folder, verify="require", options=model.options)
    assert not fastload.verify(folder, repair=True, options=model.options).findings
    assert (folder / SHARD).read_bytes() == newer.files[SHARD]
    assert fastload.verify(folder, record=True, options=model.options).recorded
    weights = fastload.load(folder, verify="require", options=model.options)
    assert_same(weights, newer.tensors)
    assert weights.report.evidence == "manifest (recorded)"


def test_what_changed_under_the_same_mtime_is_damage_and_is_not_recorded(model: Model) -> None:
    folder = model.recorded()
    age(folder / "config.json")
    flip(folder / SHARD, 5 * MIB)
    for run in (fastload.load, lambda path: fastload.verify(path, record=True)):
        with pytest.raises(IntegrityError, match=r"block 1|BLAKE3"):
            run(folder)


def test_a_config_that_was_edited_takes_no_proof_from_the_weights(model: Model) -> None:
    folder = model.recorded()
    write_later(folder, {"config.json": b'{"edited": true}'})
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"
    found = fastload.verify(folder)
    assert [file.path for file in found.files if file.evidence == "none"] == ["config.json"]
    assert fastload.verify(folder, record=True).recorded
    assert all(file.evidence == "blocks" for file in fastload.verify(folder).files)
    assert len(list((folder / ".fastload/stamps").iterdir())) == 1


def test_one_shard_that_was_written_anew_leaves_the_others_proven(model: Model, newer: Model) -> None:
    folder = model.recorded()
    write_later(folder, {SHARD: newer.files[SHARD]})
    assert fastload.load(folder).report.evidence == "none"
    assert fastload.verify(folder).evidence == "none"
    part = fastload.load(folder, tensors="2.*", verify="require")
    assert part.report.evidence == "manifest (recorded)"


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_an_index_that_was_written_anew_may_name_a_shard_that_was_not_recorded(
    tmp_path: Path, variant: str | None
) -> None:
    index = INDEX_NAME if variant is None else INDEX_NAME.replace(".json", f".{variant}.json")
    files = {"a.safetensors": one_tensor(), index: json.dumps({"weight_map": {"a": "a.safetensors"}}).encode()}
    folder = write_folder(tmp_path / "model", files)
    assert fastload.verify(folder, record=True).recorded
    write_folder(folder, {"b.safetensors": one_tensor()})
    write_later(folder, {index: files[index].replace(b"a.safe", b"b.safe")})
    assert len(fastload.load(folder, variant=variant)) == 1
    assert not fastload.verify(folder).findings


def test_what_was_saved_as_one_file_is_recorded_by_the_command_that_is_advised(model: Model) -> None:
    folder = model.recorded()
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "model.safetensors").write_bytes(one_tensor())
    with pytest.raises(IntegrityError) as caught:
        fastload.load(folder)
    assert "fastload verify NAME --record" in caught.value.hint
    assert main(["verify", str(folder), "--record"]) == 0
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"


def test_a_file_that_is_gone_is_missed_until_the_folder_is_recorded_again(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model.recorded()
    (folder / "config.json").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json"):
        fastload.verify(folder)
    assert fastload.verify(folder, record=True).recorded
    assert "config.json is gone" in caplog.text
    assert not fastload.verify(folder).findings


def test_a_shard_that_was_removed_on_purpose_is_recorded_by_the_command_that_is_advised(model: Model) -> None:
    model.files.pop(INDEX_NAME)
    model.files["part1.safetensors"], model.files["part2.safetensors"] = map(model.files.pop, (SHARD, OTHER_SHARD))
    folder = model.recorded()
    (folder / "part2.safetensors").unlink()
    with pytest.raises(IntegrityError, match="no file") as caught:
        fastload.load(folder)
    assert "fastload verify NAME --record" in caught.value.hint
    assert fastload.verify(folder, record=True).recorded
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"


def test_one_that_was_cut_short_while_it_was_written_is_damage(model: Model) -> None:
    folder = model.recorded()
    os.truncate(folder / SHARD, 5 * MIB)
    age(folder / SHARD)
    with pytest.raises(IntegrityError, match=SHARD):
        fastload.load(folder)


@pytest.mark.parametrize("kind", ["recorded", "downloaded"])
def test_a_copy_with_the_time_of_copying_is_still_known(model: Model, kind: str) -> None:
    folder = model.recorded() if kind == "recorded" else model.downloaded()
    if kind == "downloaded":
        write_timed_metadata(folder, model.files)
    copy = shutil.copytree(folder, model.local.parent / "copy")
    for path in copy.rglob("*"):
        age(path)
    assert fastload.load(copy, verify="require").report.evidence == {
        "recorded": "manifest (recorded)",
        "downloaded": "etag",
    }[kind]  # fmt: skip
    flip(copy / SHARD, 5 * MIB)
    with pytest.raises(IntegrityError):
        fastload.load(copy)


def test_a_copy_with_another_readme_is_no_damage_and_can_be_recorded_again(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.files["README.md"] = b"hello"
    copy = shutil.copytree(model.recorded(), model.local.parent / "copy")
    for path in copy.rglob("*"):
        age(path)
    (copy / "README.md").write_bytes(b"hello, edited")
    assert [file.path for file in fastload.verify(copy).files if file.evidence == "none"] == ["README.md"]
    assert fastload.load(copy, verify="require").report.evidence == "manifest (recorded)"
    assert not caplog.text  # nobody knows that it was written since
    assert fastload.verify(copy, record=True).recorded
    assert all(file.evidence == "blocks" for file in fastload.verify(copy).files)
    flip(copy / "README.md", 3)
    with pytest.raises(IntegrityError, match=r"README\.md"):
        fastload.verify(copy)


def test_a_download_that_was_trained_further_is_not_held_to_its_etags(
    model: Model, newer: Model, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model.downloaded()
    write_timed_metadata(folder, model.files)
    assert fastload.load(folder, verify="require").report.evidence == "etag"
    write_later(folder, {name: newer.files[name] for name in (SHARD, OTHER_SHARD, INDEX_NAME)})
    weights = fastload.load(folder)
    assert_same(weights, newer.tensors)
    assert weights.report.evidence == "none"
    assert "written after it was downloaded" in caplog.text
    assert fastload.verify(folder, record=True).recorded
    assert_same(fastload.load(folder, verify="require"), newer.tensors)


def test_it_does_not_stand_for_the_commit_that_was_downloaded(model: Model, newer: Model) -> None:
    folder = write_folder(model.shared / "name", model.files)
    write_timed_metadata(folder, model.files)
    options = Options(shared=str(model.shared), tiers="shared")
    assert_same(fastload.load(REPO, revision=COMMIT, options=options), model.tensors)
    write_later(folder, {SHARD: newer.files[SHARD]})
    with pytest.raises(IntegrityError, match=SHARD):
        fastload.load(REPO, revision=COMMIT, options=options)


def test_one_that_was_downloaded_again_is_known_by_what_a_load_leaves_apart(model: Model) -> None:
    folder = model.recorded()
    write_later(folder, {SHARD: model.files[SHARD]})
    write_download_metadata(folder, COMMIT, {SHARD: model.files[SHARD]})
    options = Options(manifests=str(model.local.parent / "manifests"))
    assert [fastload.load(folder, options=options).report.evidence for _ in range(2)] == ["etag", "manifest (recorded)"]


def test_a_load_records_no_weights_that_nobody_proves(model: Model) -> None:
    """However small they are: only their owner says that they are right."""
    folder = write_folder(model.local.parent / "bare", model.files)
    write_download_metadata(folder, COMMIT, {SHARD: model.files[SHARD]})
    options = Options(manifests=str(model.local.parent / "manifests"))
    assert fastload.load(folder, options=options).report.evidence == "none"
    with pytest.raises(IntegrityError, match="nothing is known"):
        fastload.load(folder, verify="require", options=options)


@pytest.mark.parametrize("name", ["a\nb.txt", "\udcff.txt", "back\\slash.json"])
def test_what_no_manifest_can_name_is_not_recorded_with_the_rest(tmp_path: Path, name: str) -> None:
    """It was, and no load could read that; or recording ended with what Python says of such a name."""
    folder = write_folder(tmp_path / "plain", {"model.safetensors": one_tensor()})
    fastload.verify(folder, record=True)
    (folder / name).write_bytes(b"{}")
    with pytest.raises(FormatError, match="Rename it"):
        fastload.verify(folder, record=True)
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"
    (folder / name).unlink()
    assert fastload.verify(folder, record=True).is_right
