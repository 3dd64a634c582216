"""A file that a manifest names and that is gone, or has another length, is a bad block: brought again, or exit 13."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError, Options, UsageError
from fastload._fetch.checkpoint import fetch as checkpoint
from fastload.cli import main
from hub_server import HubServer, Repo
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from signing import sign
from stored_models import COMMIT, write_cache, write_folder
from writing import INDEX_NAME, pack, write_index

if TYPE_CHECKING:
    from collections.abc import Callable

SHARD = "model-00001-of-00002.safetensors"
QUANTISED = b'{"quantization_config": {"bits": 4}}'


def _unlink(path: Path) -> None:
    path.unlink()


def _remove_blob(path: Path) -> None:
    path.resolve().unlink()


def _cut(path: Path) -> None:
    os.truncate(path.resolve(), path.stat().st_size - 1)


def _cut_to_nothing(path: Path) -> None:
    os.truncate(path.resolve(), 0)


def _lengthen(path: Path) -> None:
    os.truncate(path.resolve(), path.stat().st_size + 1)


LOSSES = [_unlink, _remove_blob, _cut, _cut_to_nothing, _lengthen]


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("name", [SHARD, INDEX_NAME])
def test_what_is_lost_is_brought_again_delivered_and_in_its_place(
    model: Model, lose: Callable[[Path], None], name: str
) -> None:
    snapshot = model.warmed()
    lose(snapshot / name)
    weights = fastload.load(REPO, options=model.options)
    assert_same(weights, model.tensors)
    assert (weights.report.tier, weights.report.evidence) == ("local", "manifest")
    assert weights.report.blocks_repaired >= 1
    assert (snapshot / name).is_symlink()
    assert (snapshot / name).read_bytes() == model.files[name]
    assert not os.listdir(snapshot.parent.parent / ".fastload/staging")
    assert not os.listdir(snapshot.parent.parent / ".fastload/journals")
    again = fastload.load(REPO, options=Options(local=str(model.local), tiers=("local",)))
    assert again.report.blocks_repaired == 0


@pytest.mark.parametrize("lose", LOSSES[1:])  # where only the link is lost, the blob is there
def test_what_nobody_else_has_is_damage_and_never_not_found(model: Model, lose: Callable[[Path], None]) -> None:
    snapshot = model.warmed()
    lose(snapshot / SHARD)
    with pytest.raises(IntegrityError) as caught:
        fastload.load(REPO, options=Options(local=str(model.local), tiers=("local",)))
    assert caught.value.exit_code == 13
    assert caught.value.path == str(snapshot / SHARD)
    assert caught.value.expected == f"{len(model.files[SHARD]):,} bytes"
    assert "fastload warm" in caught.value.hint


def test_what_is_lost_is_brought_from_the_hub_where_no_folder_has_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer({REPO: Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = Options(local=str(model.local))
        shard = os.path.join(fastload.warm(REPO, options=options).path, SHARD)
        os.unlink(shard)
        os.unlink(next(path for path in (model.local / "models--org--name/blobs").iterdir() if _is(path, model)))
        served = hub.served_bytes("safetensors")
        assert_same(fastload.load(REPO, options=options), model.tensors)
        assert hub.served_bytes("safetensors") - served == len(model.files[SHARD])


def _is(path: Path, model: Model) -> bool:
    return path.read_bytes() == model.files[SHARD]


def test_a_source_that_is_damaged_is_none(model: Model) -> None:
    snapshot = model.warmed()
    (snapshot / SHARD).resolve().unlink()
    source = model.shared / "models--org--name" / "snapshots" / COMMIT / SHARD
    source.resolve().write_bytes(bytes(len(model.files[SHARD])))
    with pytest.raises(IntegrityError, match=r"fastload verify NAME --repair.*could not give it"):
        fastload.load(REPO, options=model.options)
    assert not os.path.exists(snapshot / SHARD)


def test_a_model_without_an_index_is_not_taken_for_a_smaller_one(model: Model) -> None:
    del model.files[INDEX_NAME]
    for number in (1, 2):
        model.files[f"part{number}.safetensors"] = model.files.pop(f"model-0000{number}-of-00002.safetensors")
    snapshot = model.warmed()
    (snapshot / "part2.safetensors").unlink()
    with pytest.raises(IntegrityError):
        fastload.load(snapshot)
    assert_same(fastload.load(REPO, options=model.options), model.tensors)


def test_a_copy_on_a_mount_is_left_alone_by_a_load(model: Model, tmp_path: Path) -> None:
    model.warmed()
    other = Options(local=str(tmp_path / "other"), shared=str(model.local), tiers=("local", "shared"))
    lost = model.local / "models--org--name" / "snapshots" / COMMIT / SHARD
    lost.unlink()
    with pytest.raises(IntegrityError):
        fastload.load(REPO, options=other)
    assert not lost.exists()


def _elsewhere(model: Model, tmp_path: Path) -> Options:
    """Of somebody to whom the local tier of ``model`` is a mount."""
    return Options(local=str(tmp_path / "other"), shared=str(model.local), write_through="on")


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("name", [SHARD, INDEX_NAME])
def test_what_a_mount_has_lost_is_delivered_from_the_hub_and_kept(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Path], None], name: str
) -> None:
    """The commit that the mount has, though the hub has a newer one; the mount is left as it is."""
    repo, options = Repo(model.files), _elsewhere(model, tmp_path)
    with HubServer({REPO: repo}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        snapshot = Path(fastload.warm(REPO, options=Options(local=str(model.local))).path)
        commit = repo.commit
        repo.push({**model.files, "config.json": b'{"newer": 1}'})
        lose(snapshot / name)
        before = _times(model.local)
        weights = fastload.load(REPO, options=options)
        assert_same(weights, model.tensors)
        assert (weights.report.tier, weights.report.commit) == ("hub", commit)
        assert weights.report.commit_learnt == f"shared:{model.local}"
    again = fastload.load(REPO, options=options)
    assert_same(again, model.tensors)
    assert (again.report.tier, again.report.commit) == ("local", commit)
    assert _times(model.local) == before


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_what_a_mount_has_lost_is_delivered_from_the_next_one(model: Model, tmp_path: Path) -> None:
    lost = model.warmed() / SHARD
    lost.unlink()
    options = replace(_elsewhere(model, tmp_path), shared=f"{model.local}:{model.shared}", tiers=("local", "shared"))
    weights = fastload.load(REPO, options=options)
    assert_same(weights, model.tensors)
    assert (weights.report.tier, weights.report.commit) == (f"shared:{model.shared}", COMMIT)
    assert_same(dict(fastload.stream(REPO, options=options)), model.tensors)
    assert not lost.exists()


def test_what_a_mount_has_lost_and_the_hub_cannot_be_asked_for_is_damage(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub of all tests is where nobody listens; here it is asked for less long."""
    monkeypatch.setattr(checkpoint, "_BETTER_SOURCE_S", 0.5)
    snapshot = model.warmed()
    (snapshot / SHARD).unlink()
    with pytest.raises(IntegrityError) as caught:
        fastload.load(REPO, options=_elsewhere(model, tmp_path))
    assert caught.value.path == str(snapshot / SHARD)
    assert "fastload verify" in caught.value.hint


def test_repair_brings_back_what_is_missing_and_short(model: Model) -> None:
    snapshot = model.warmed()
    (snapshot / SHARD).resolve().unlink()
    os.truncate((snapshot / "config.json").resolve(), 1)
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert {(each.path, each.found, each.repaired) for each in found.findings} == {
        (SHARD, "no file", True),
        ("config.json", "1 bytes", True),
    }
    assert fastload.verify(REPO, options=model.options).findings == ()
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


def test_repair_mends_a_mount_since_that_was_asked_for(model: Model, tmp_path: Path) -> None:
    """The mount is a cache that fastload wrote; another mount has the model too."""
    snapshot = model.warmed()
    roots = f"{model.local}:{model.shared}"
    other = Options(local=str(tmp_path / "other"), shared=roots, tiers=("local", "shared"))
    (snapshot / SHARD).resolve().unlink()
    found = fastload.verify(REPO, repair=True, options=other)
    assert [(each.path, each.repaired) for each in found.findings] == [(SHARD, True)]
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


def test_repair_that_cannot_bring_it_says_so(model: Model) -> None:
    snapshot = model.warmed()
    (snapshot / SHARD).unlink()
    (snapshot / SHARD).symlink_to("nowhere")
    for blob in (model.local / "models--org--name/blobs").iterdir():
        if _is(blob, model):
            blob.unlink()
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(REPO, repair=True, options=Options(local=str(model.local), tiers=("local",)))
    assert [(each.path, each.repaired) for each in caught.value.findings] == [(SHARD, False)]


def test_a_config_that_is_lost_does_not_say_that_nothing_is_quantised(model: Model) -> None:
    model.files = {"model.safetensors": pack({"a": ("F32", [4], bytes(16))}), "config.json": b"{}"}
    snapshot = model.warmed()
    assert list(fastload.load(snapshot, dtype="BF16")) == ["a"]
    (snapshot / "config.json").unlink()
    assert list(fastload.load(snapshot)) == ["a"]  # nobody asked what it says
    with pytest.raises(IntegrityError, match=r"config\.json"):
        fastload.load(snapshot, dtype="BF16")


@pytest.mark.parametrize("subfolder", ["sub", "./sub", "sub/.", "sub//"])
def test_nor_does_one_in_a_subfolder_however_that_is_spelled(
    tmp_path: Path, subfolder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"sub/model.safetensors": pack({"a": ("F16", [2], b"abcd")}), "sub/config.json": QUANTISED}
    plain = write_folder(tmp_path / "plain", files)
    fastload.verify(plain, record=True)
    (plain / "sub/config.json").unlink()
    with pytest.raises(IntegrityError, match=r"sub/config\.json"):
        fastload.load(plain, subfolder=subfolder, dtype="F32")
    options = Options(local=str(tmp_path / "local"), write_through="off")
    with HubServer({REPO: Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert list(fastload.load(REPO, subfolder=subfolder, options=options)) == ["a"]
        with pytest.raises(UsageError, match="quantization_config"):
            fastload.load(REPO, subfolder=subfolder, dtype="F32", options=options)


def test_the_config_of_the_whole_is_not_missed_in_a_part_of_it(tmp_path: Path) -> None:
    files = {"sub/model.safetensors": pack({"a": ("F16", [2], b"abcd")}), "config.json": b"{}"}
    write_cache(tmp_path / "shared", REPO, COMMIT, files)
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    snapshot = Path(fastload.warm(REPO, options=options).path)
    for part in ("sub", "sub/model.safetensors"):
        assert fastload.load(snapshot / part, dtype="F32", options=options).report.evidence == "manifest"


@pytest.mark.parametrize("way", ["path", "name", "signed"])
def test_where_an_index_is_lost_no_other_one_takes_its_place(tmp_path: Path, way: str) -> None:
    files = {"a.safetensors": pack({"w": ("U8", [4], b"this")}), "b.safetensors": pack({"w": ("U8", [4], b"that")})}
    folder = write_folder(tmp_path / "shared" / "name", files)
    index = write_index(folder, {"w": "a.safetensors"})
    write_index(folder, {"w": "b.safetensors"}, "other.safetensors.index.json")
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    if way == "signed":
        pytest.importorskip("cryptography", reason="signatures need cryptography")
        sign(folder)
        options = replace(options, signature_key=str(folder.parent / "key.pem"))
    else:
        fastload.verify(folder, record=True)
    model = "name" if way == "name" else folder
    assert bytes(fastload.load(model, options=options)["w"].numpy()) == b"this"
    index.unlink()
    with pytest.raises(IntegrityError, match=r"model\.safetensors\.index\.json"):
        fastload.load(model, options=options)
    other = fastload.load(folder / "other.safetensors.index.json", options=options)  # asked for, it is meant
    assert bytes(other["w"].numpy()) == b"that"


@pytest.mark.parametrize("name", ["config.json", INDEX_NAME])
def test_one_that_was_cut_to_nothing_is_damage_and_not_malformed(tmp_path: Path, name: str) -> None:
    files = {"model.safetensors": pack({"a": ("F16", [2], b"abcd")}), "config.json": b"{}"}
    folder = write_folder(tmp_path / "plain", files)
    write_index(folder, {"a": "model.safetensors"})
    fastload.verify(folder, record=True)
    status = (folder / name).stat()
    os.truncate(folder / name, 0)
    os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(IntegrityError, match=name):
        fastload.load(folder, dtype="F32")


def test_a_link_that_is_lost_is_made_again_though_nobody_else_has_the_model(model: Model) -> None:
    snapshot = model.warmed()
    (snapshot / SHARD).unlink()
    weights = fastload.load(REPO, options=Options(local=str(model.local), tiers=("local",)))
    assert_same(weights, model.tensors)
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


def test_a_blob_of_the_right_length_and_other_bytes_is_no_source(model: Model) -> None:
    """The link is lost, and what it led to is damaged: the blob's name promises, its bytes decide."""
    snapshot = model.warmed()
    flip(snapshot / SHARD, 5 * MIB)
    (snapshot / SHARD).unlink()
    assert_same(fastload.load(REPO, options=model.options), model.tensors)
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]


def test_a_cast_goes_by_a_config_that_is_proven(model: Model) -> None:
    model.files = {
        "model.safetensors": pack({"a": ("F32", [4], bytes(16))}),
        "config.json": b'{"quantization_config": 1}',
    }
    snapshot = model.warmed()
    with pytest.raises(UsageError, match="quantization_config"):
        fastload.load(snapshot, dtype="BF16")
    (snapshot / "config.json").resolve().write_bytes(b'{"quantization_conf1g": 1}')
    with pytest.raises(IntegrityError, match=r"config\.json"):
        fastload.load(snapshot, dtype="BF16")


def test_the_command_tells_files_from_blocks(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = model.warmed()
    (snapshot / "config.json").resolve().unlink()
    flip(snapshot / SHARD, 5 * MIB)
    tiers = ["--local", str(model.local), "--shared", str(model.shared), "--tiers", "local,shared"]
    assert main(["verify", REPO, "--repair", *tiers]) == 0
    said = capsys.readouterr().out
    assert "brought again" in said
    assert "1 blocks repaired" in said


def test_what_has_lost_a_file_does_not_go_to_make_room_for_it(model: Model) -> None:
    """A plain folder says of no commit, so it is not known by that what the room is for."""
    write_folder(model.shared / "org" / "name", model.files)
    roomy = replace(model.options, local_max_bytes="1Gi")
    snapshot = Path(fastload.warm(REPO, options=roomy).path)
    (snapshot / SHARD).resolve().unlink()
    ours = snapshot.parent.parent / ".fastload"
    for path in (*(ours / "manifests").iterdir(), *(ours / "stamps").iterdir()):
        os.utime(path, (time.time() - 3600,) * 2)
    with pytest.raises(IntegrityError, match="local_max_bytes"):
        fastload.load(REPO, options=replace(roomy, local_max_bytes="8Mi"))
    assert (snapshot / INDEX_NAME).exists()
    assert_same(fastload.load(REPO, options=roomy), model.tensors)


@pytest.mark.parametrize("change", [_cut, _lengthen])
def test_of_one_of_another_length_only_the_blocks_come_that_are_wrong(
    model: Model, change: Callable[[Path], None]
) -> None:
    snapshot = model.warmed()
    change(snapshot / SHARD)
    report = fastload.load(REPO, options=model.options).report
    assert (snapshot / SHARD).read_bytes() == model.files[SHARD]
    last = len(model.files[SHARD]) % (4 * MIB) if change is _cut else 0
    assert report.bytes_by_tier.get(f"shared:{model.shared}", 0) == last
    assert report.blocks_repaired == 1
