"""``fastload verify``: all that is stored is looked at, all that is wrong is told, and mended where it can be."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import (
    FastloadError,
    Finding,
    FormatError,
    IntegrityError,
    ModelNotFoundError,
    NotWritableError,
    Options,
    UsageError,
)
from fastload.cli import main
from models import MIB, assert_same
from proven_models import PLACES, REPO, Model, flip, refuse_to_replace
from stored_models import COMMIT, model_files, write_cache, write_download_metadata, write_folder
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARD = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_right_is_found_right(model: Model, kind: str) -> None:
    found = fastload.verify(PLACES[kind](model))
    assert (found.evidence, found.findings, found.recorded) == (kind, (), False)
    assert [file.path for file in found.files] == sorted(model.files)


@pytest.mark.parametrize("record", [False, True], ids=["checked", "recorded"])
def test_a_log_is_told_how_far_it_is(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, record: bool
) -> None:
    monkeypatch.setattr("fastload._progress._LINE_EVERY_S", 0.0)
    folder = str(model.downloaded() if record else model.warmed())
    words = ["verify", folder, *(["--record"] if record else [])]
    assert main(words) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("fastload: 0.0 of 0.0 GiB (") for line in lines)
    assert "(100%)" in lines[-1]
    assert "(100%)" not in lines[0]
    assert main([*words, "--no-progress"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", PLACES)
def test_everything_that_is_wrong_is_told(model: Model, kind: str) -> None:
    folder = PLACES[kind](model)
    flip(folder / SHARD, 3)
    flip(folder / SHARD, 5 * MIB)
    flip(folder / "config.json", 0)
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(folder)
    findings: tuple[Finding, ...] = caught.value.findings
    by_block, by_file = {(SHARD, 0), (SHARD, 1), ("config.json", 0)}, {(SHARD, None), ("config.json", None)}
    told = by_block if kind.startswith("manifest") else by_file
    assert {(finding.path, finding.block) for finding in findings} == told
    assert json.loads(json.dumps(caught.value.to_dict()))["findings"][0]["repaired"] is False
    only = fastload.verify(folder, include="model-00002-*")
    assert [file.path for file in only.files] == ["model-00002-of-00002.safetensors"]


def test_what_is_missing_or_too_short_is_told(model: Model) -> None:
    folder = model.warmed()
    os.truncate((folder / SHARD).resolve(), 5)
    (folder / "config.json").resolve().unlink()
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(REPO, options=model.options)
    assert {finding.path for finding in caught.value.findings} == {SHARD, "config.json"}


def test_repair_mends_blocks_from_another_tier(model: Model) -> None:
    folder = model.warmed()
    flip(folder / SHARD, 5 * MIB)
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert [(finding.block, finding.repaired) for finding in found.findings] == [(1, True)]
    assert fastload.verify(REPO, options=model.options).findings == ()
    assert (folder / SHARD).read_bytes() == model.files[SHARD]


@pytest.mark.parametrize("place", ["a mount", "a plain folder"])
def test_repair_mends_what_it_was_pointed_at_for_good(model: Model, place: str, tmp_path: Path) -> None:
    model.warmed()
    folder = model.shared / "models--org--name/snapshots" / COMMIT
    options = replace(model.options, shared=(str(model.shared), str(tmp_path / "more")))
    if place == "a plain folder":
        write_folder(tmp_path / "more/bare", model.files)
        folder = write_folder(tmp_path / "bare", model.files)
    assert fastload.verify(folder, record=True, options=options).recorded
    (folder / SHARD).resolve().chmod(0o640)
    if not os.geteuid():
        os.chown(folder / SHARD, 65534, 65534)
    before = (folder / SHARD).stat()
    flip(folder / SHARD, 5 * MIB)
    found = fastload.verify(folder, repair=True, options=options)
    assert [(finding.block, finding.repaired) for finding in found.findings] == [(1, True)]
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    after = (folder / SHARD).stat()
    for fact in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"):
        assert getattr(after, fact) == getattr(before, fact)
    assert fastload.verify(folder, options=options).findings == ()


def test_what_may_not_be_written_is_not_called_repaired(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model.warmed()
    flip(folder / SHARD, 5 * MIB)
    refuse_to_replace(folder / SHARD, monkeypatch)
    with pytest.raises(NotWritableError):
        fastload.verify(REPO, repair=True, options=model.options)


@pytest.mark.parametrize("kind", ["blocks", "sha256"])
def test_what_was_found_is_printed_and_told_though_it_cannot_be_written(
    model: Model, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused, mended = SHARD, "model-00002-of-00002.safetensors"
    folder = model.warmed() if kind == "blocks" else model.cached()
    write_cache(model.shared, REPO, COMMIT, {} if kind == "blocks" else model.files)
    for name in (refused, mended):
        flip(folder / name, 5 * MIB)
    blob = str((folder / refused).resolve())
    refuse_to_replace(folder / refused, monkeypatch)
    command = ["verify", REPO, "--repair", "--local", str(model.local)]
    command += ["--shared", str(model.shared), "--tiers", "local,shared"]
    assert main(command) == NotWritableError.exit_code
    printed = capsys.readouterr()
    assert main([*command, "--json"]) == NotWritableError.exit_code
    told = json.loads(capsys.readouterr().out)["error"]
    assert printed.out.count(kind) >= len(model.files) - 1
    assert (printed.out.count(" ok"), printed.out.count("DAMAGED")) == (len(model.files) - 2, 1)
    assert printed.out.count("  found  ") == 2
    assert blob in printed.err
    assert [(finding["path"], finding["repaired"]) for finding in told["findings"]] == [(refused, False)]
    assert (folder / mended).read_bytes() == model.files[mended]


def test_what_was_found_is_printed_though_no_manifest_can_be_written(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.cached()
    (folder.parents[1] / ".fastload").write_text("in the way")
    assert main(["verify", str(folder), "--record"]) == NotWritableError.exit_code
    printed = capsys.readouterr().out
    assert printed.count(" ok") == len(model.files)
    assert "recorded" not in printed


def test_record_makes_a_manifest_of_what_another_tool_brought(model: Model) -> None:
    model.cached()
    assert fastload.verify(REPO, record=True, options=model.options).recorded
    again = fastload.verify(REPO, record=True, options=model.options)
    assert (again.evidence, again.recorded) == ("manifest", False)


def test_a_plain_folder_can_be_recorded_and_is_trusted_only_where_nobody_else_writes(model: Model) -> None:
    folder = write_folder(model.local.parent / "bare", model.files)
    assert fastload.verify(folder).evidence == "none"
    assert fastload.verify(folder, record=True).recorded
    weights = fastload.load(folder, verify="require")
    assert_same(weights, model.tensors)
    assert weights.report.evidence == "manifest (recorded)"
    flip(folder / SHARD, 5 * MIB)
    with pytest.raises(IntegrityError):
        fastload.load(folder)
    flip(folder / SHARD, 5 * MIB)
    (folder / ".fastload/manifests").chmod(0o777)
    assert fastload.load(folder).report.evidence == "none"


def test_a_folder_that_is_recorded_again_is_known_by_the_new_manifest(model: Model) -> None:
    folder = model.recorded()
    next((folder / ".fastload/manifests").iterdir()).chmod(0o666)  # not believed any more
    (folder / "config.json").write_text('{"new": true}')
    assert fastload.verify(folder, record=True).recorded
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"


def test_a_folder_of_real_files_proves_itself(model: Model, tmp_path: Path) -> None:
    model.warmed()
    arguments = ["warm", REPO, "--plain", str(tmp_path / "real"), "--local", str(model.local), "--tiers", "local"]
    assert main(arguments) == 0
    assert fastload.load(tmp_path / "real", verify="require").report.evidence == "manifest (recorded)"
    write_download_metadata(tmp_path / "real", COMMIT, model.files)
    assert fastload.load(tmp_path / "real", verify="require").report.evidence == "manifest"


def test_the_command_prints_each_file_and_ends_by_what_it_found(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.warmed()
    flags = ["--local", str(model.local), "--tiers", "local"]
    assert main(["verify", REPO, *flags]) == 0
    assert capsys.readouterr().out.count(" ok") == len(model.files)
    flip(folder / SHARD, 5 * MIB)
    assert main(["verify", f"{REPO}@{COMMIT}", "--json", *flags]) == 13
    assert json.loads(capsys.readouterr().out)["error"]["findings"][0]["block"] == 1
    shared = ["--local", str(model.local), "--shared", str(model.shared), "--tiers", "local,shared"]
    assert main(["verify", REPO, "--repair", *shared]) == 0
    assert "1 blocks repaired" in capsys.readouterr().out
    assert main(["verify", "org/none", "--tiers", "local"]) == 12


def test_the_command_prints_what_was_found_and_expected_of_what_is_wrong(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, kind in ((model.warmed(), "block 1 at byte 4,194,304"), (model.downloaded(), "sha256")):
        flip(folder / SHARD, 5 * MIB)
        with pytest.raises(IntegrityError) as caught:
            fastload.verify(folder)
        (finding,) = caught.value.findings
        assert main(["verify", str(folder)]) == 13
        printed = capsys.readouterr()
        assert f"found     {finding.found}" in printed.out and f"expected  {finding.expected}" in printed.out
        assert kind in printed.out and printed.out.count("DAMAGED") == 1
        assert printed.out.count(" ok") == len(model.files) - 1
        assert main(["verify", str(folder), "--json", "--include", "model-*"]) == 13
        (told,) = json.loads(capsys.readouterr().out)["error"]["findings"]
        assert (told["path"], told["found"], told["expected"]) == (SHARD, finding.found, finding.expected)


_HARM: dict[str, Callable[[Path], object]] = {
    "cut short": lambda shard: os.truncate(shard, shard.stat().st_size - 1000),
    "grown": lambda shard: os.truncate(shard, shard.stat().st_size + 1000),
    "garbage": lambda shard: shard.write_bytes(b"\xff" * shard.stat().st_size),
    "gone": lambda shard: shard.unlink(),
}


@pytest.mark.parametrize("harm", _HARM)
def test_what_a_folder_says_of_itself_must_be_so_where_nothing_else_is_known(
    model: Model, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no load takes must not be called fine, and least of all be recorded for what is right."""
    folder = write_folder(model.local.parent / "bare", model.files)
    _HARM[harm](folder / SHARD)
    with pytest.raises(FastloadError):
        fastload.load(folder)
    for record in (False, True):
        with pytest.raises(IntegrityError) as caught:
            fastload.verify(folder, record=record)
        (finding,) = caught.value.findings
        assert finding.path == (INDEX_NAME if harm == "gone" else SHARD)
        assert caught.value.block is None
    assert not (folder / ".fastload").exists()
    assert main(["verify", str(folder)]) == 13
    assert capsys.readouterr().out.count("DAMAGED") == 1


OTHER_SHARD = "model-00002-of-00002.safetensors"
_NO_FILE: dict[str, Callable[[Path], object]] = {
    "missing": str,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a looping link": lambda path: path.symlink_to(path.name),
    "a folder": lambda path: path.mkdir(),
    "a named pipe": os.mkfifo,
}


@pytest.mark.parametrize("below", ["", "unet"])
@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("kind", _NO_FILE)
def test_a_folder_without_all_its_shards_is_not_right_and_is_not_recorded(
    tmp_path: Path,
    kind: str,
    with_index: bool,  # noqa: FBT001 - a case
    below: str,
) -> None:
    files = model_files()
    shard = files.pop(OTHER_SHARD)
    index = {} if with_index else {INDEX_NAME: files.pop(INDEX_NAME)}
    folder = write_folder(tmp_path / "bare", {"config.json": b"{}"})
    write_folder(folder / below, files)
    _NO_FILE[kind](folder / below / OTHER_SHARD)
    with pytest.raises(FormatError):
        fastload.load(folder, subfolder=below or None)
    for record in (False, True):
        with pytest.raises(IntegrityError) as caught:
            fastload.verify(folder, record=record)
        assert len(caught.value.findings) == 1
        assert caught.value.path.startswith(str(folder / below))
    assert not (folder / ".fastload").exists()
    assert not fastload.verify(folder, include="*config.json").findings
    if kind == "missing":
        write_folder(folder / below, {OTHER_SHARD: shard, **index})
        assert fastload.verify(folder, record=True).recorded
        fastload.load(folder, subfolder=below or None, verify="require")


@pytest.mark.parametrize("kind", _NO_FILE)
@pytest.mark.parametrize("name", ["model.safetensors", "model.fp16.safetensors"])
def test_a_folder_without_any_weights_is_none(tmp_path: Path, kind: str, name: str) -> None:
    _NO_FILE[kind](tmp_path / name)
    variant = None if name == "model.safetensors" or kind == "missing" else "fp16"
    for verb in (partial(fastload.load, variant=variant), fastload.verify, partial(fastload.verify, record=True)):
        with pytest.raises(FormatError):
            verb(tmp_path)
    assert main(["verify", str(tmp_path)]) == 17
    assert not (tmp_path / ".fastload").exists()


def test_a_variant_without_all_its_shards_is_told_and_one_of_several_is_no_fault(tmp_path: Path) -> None:
    names = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]
    write_folder(tmp_path, {"model.bf16.safetensors": one_tensor(), **dict.fromkeys(names, one_tensor())})
    assert not fastload.verify(tmp_path).findings
    (tmp_path / names[1]).unlink()
    with pytest.raises(IntegrityError, match="1 of 2 shards"):
        fastload.verify(tmp_path)


def test_what_is_called_as_a_shard_and_which_no_load_takes_is_no_fault(tmp_path: Path) -> None:
    write_folder(tmp_path, {"model.safetensors": one_tensor(), "pytorch_model.bin": b"1"})
    (tmp_path / "other.safetensors").symlink_to("nowhere")
    assert fastload.verify(tmp_path, record=True).recorded


@pytest.mark.parametrize("is_set", [True, False])
def test_a_shard_that_is_a_link_out_of_the_folder_is_told_once(tmp_path: Path, is_set: bool) -> None:  # noqa: FBT001 - a case
    names = (SHARD, OTHER_SHARD) if is_set else ("model.safetensors",)
    folder = write_folder(tmp_path / "bare", dict.fromkeys(names, one_tensor()))
    (folder / names[0]).rename(tmp_path / "outside")
    (folder / names[0]).symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError, match="a link to") as caught:
        fastload.verify(folder)
    assert len(caught.value.findings) == 1


def test_a_gap_in_a_set_is_told_beside_what_is_wrong_with_a_shard_of_it(tmp_path: Path) -> None:
    (write_folder(tmp_path, {SHARD: one_tensor()}) / SHARD).write_bytes(one_tensor()[:-1])
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(tmp_path)
    assert [finding.expected for finding in caught.value.findings][-1] == "all 2"
    assert len(caught.value.findings) == 2


def test_what_macos_leaves_beside_files_is_none_of_the_model(model: Model) -> None:
    """By every verb as by a load; and what is recorded and warmed of the folder is the model."""
    there = ["config.json", "tokenizer.json", *model.files]
    junk = dict.fromkeys((f"._{name}" for name in there), b"\0\5\x16\7" + bytes(4092))
    folder = write_folder(model.local.parent / "bare", {**model.files, **junk})
    write_folder(folder / "._unet", junk)
    assert fastload.resolve(folder).complete
    assert {file.path for file in fastload.verify(folder).files} == model.files.keys()
    assert fastload.verify(folder, record=True).recorded
    assert_same(fastload.load(folder, verify="require"), model.tensors)
    snapshot = fastload.warm(folder, options=replace(model.options, verify="require")).path
    assert {name for name in os.listdir(snapshot) if not name.startswith(".fastload")} == model.files.keys()


def test_a_commit_that_has_files_called_as_macos_calls_its_own_is_right_without_them(model: Model) -> None:
    write_cache(model.local, REPO, COMMIT, {**model.files, "._config.json": b"\0\5\x16\7", "._x.safetensors": b"\0"})
    assert not fastload.verify(REPO, options=model.options).findings
    loaded = fastload.load(REPO, verify="require", options=model.options)
    assert loaded.report.tier == "local"
    assert_same(loaded, model.tensors)


def test_a_shard_that_is_lost_of_a_recorded_set_is_told_once(model: Model) -> None:
    model.files.pop(INDEX_NAME)
    folder = model.recorded()
    (folder / SHARD).unlink()
    with pytest.raises(IntegrityError, match="no file") as caught:
        fastload.verify(folder)
    assert len(caught.value.findings) == 1
    with pytest.raises(IntegrityError, match="1 of 2 shards"):
        fastload.verify(folder, record=True)


def test_an_error_has_the_number_of_the_block(model: Model) -> None:
    folder = model.warmed()
    flip(folder / SHARD, 5 * MIB)
    options = replace(model.options, tiers="local")
    for look in (fastload.verify, fastload.load):
        with pytest.raises(IntegrityError, match="block 1 at byte 4194304: found BLAKE3") as caught:
            look(REPO, options=options)
        assert (caught.value.block, caught.value.offset) == (1, 4 * MIB)
        assert len(caught.value.found.removeprefix("BLAKE3 ")) == len(caught.value.expected)


def test_a_folder_that_is_recorded_under_an_open_umask_is_believed(model: Model) -> None:
    folder = write_folder(model.local.parent / "bare", model.files)
    before = os.umask(0)
    try:
        assert fastload.verify(folder, record=True).recorded
    finally:
        os.umask(before)
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"


def test_what_is_incomplete_can_be_checked_too(model: Model) -> None:
    snapshot = model.cached()
    (snapshot / SHARD).unlink()
    found = fastload.verify(REPO, options=Options(local=str(model.local), tiers="local"))
    assert SHARD not in {file.path for file in found.files}
    assert f"no {SHARD!r}, which" in found.missing[0] and found.is_right


@pytest.mark.parametrize("by", ["dangling", "gone", "indexless"])
def test_what_an_unfinished_download_lacks_is_told(model: Model, capsys: pytest.CaptureFixture[str], by: str) -> None:
    snapshot = model.cached()
    (snapshot / SHARD).resolve().unlink()
    if by != "dangling":
        (snapshot / SHARD).unlink()
    if by == "indexless":
        (snapshot / INDEX_NAME).unlink()
    words = ["verify", REPO, "--local", str(model.local), "--tiers", "local"]
    assert main(words) == 0
    assert "incomplete, so that no load takes it: no 'model-0000" in capsys.readouterr().out
    assert main([*words, "--include", "config.json"]) == 0
    assert "incomplete" not in capsys.readouterr().out, "nobody asked for more"


def test_what_a_complete_one_lacks_is_nothing(model: Model) -> None:
    for snapshot in (model.cached(), model.warmed()):
        assert fastload.verify(snapshot).missing == ()


def test_what_a_manifest_says_is_missing_is_damage(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = model.warmed()
    (snapshot / SHARD).unlink()
    words = ["verify", REPO, "--local", str(model.local), "--shared", str(model.shared), "--tiers", "local,shared"]
    assert main(words) == 13
    assert "DAMAGED" in (told := capsys.readouterr().out) and "incomplete" not in told
    assert main([*words, "--repair"]) == 0
    assert "incomplete" not in capsys.readouterr().out


@pytest.mark.parametrize("is_gone", [False, True])
def test_no_repair_finishes_a_download(model: Model, capsys: pytest.CaptureFixture[str], *, is_gone: bool) -> None:
    snapshot = model.cached()
    (snapshot / SHARD).resolve().unlink()
    if is_gone:
        (snapshot / SHARD).unlink()
    words = ["verify", REPO, "--local", str(model.local), "--shared", str(model.shared), "--tiers", "local,shared"]
    assert main([*words, "--repair"]) == 0
    assert not (snapshot / SHARD).exists() and "incomplete" in capsys.readouterr().out


@pytest.mark.parametrize("with_index", [True, False])
def test_what_a_recorded_folder_has_gained_is_told(model: Model, with_index: bool) -> None:  # noqa: FBT001 - a case
    if not with_index:
        model.files.pop(INDEX_NAME)
        model.files["part1.safetensors"] = model.files.pop(SHARD)
        model.files["part2.safetensors"] = model.files.pop("model-00002-of-00002.safetensors")
    folder = model.recorded()
    (folder / "notes.txt").write_text("new")
    found = fastload.verify(folder)
    assert [(file.path, file.evidence) for file in found.files if file.evidence != "blocks"] == [("notes.txt", "none")]
    (folder / "part3.safetensors").write_bytes(one_tensor())
    if with_index:  # which does not name it: no load reads it
        assert "part3.safetensors" in {file.path for file in fastload.verify(folder).files}
        return
    for run in (fastload.load, fastload.verify, partial(fastload.verify, repair=True)):
        with pytest.raises(IntegrityError, match="does not name"):
            run(folder)


@pytest.mark.parametrize("record", [False, True])
def test_a_path_where_nothing_is_does_not_mean_the_folder_above_it(model: Model, *, record: bool) -> None:
    folder = write_folder(model.local.parent / "bare", model.files)
    for path in (folder / "mistyped", model.cached() / "mistyped.safetensors"):
        with pytest.raises(ModelNotFoundError, match="mistyped"):
            fastload.verify(path, record=record)
    assert not (folder / ".fastload").exists()


def test_globs_that_match_nothing_and_a_part_that_shall_be_recorded_are_mistakes(model: Model) -> None:
    folder = model.cached()
    with pytest.raises(UsageError, match="matches none of 4 files"):
        fastload.verify(folder, include=("config.json", "modle-*"))
    with pytest.raises(UsageError, match="record"):
        fastload.verify(folder, include="*.json", record=True)
    assert main(["verify", str(folder), "--include", "modle-*"]) == 2


@pytest.mark.parametrize("name", ["model.gguf", "pytorch_model.bin"])
@pytest.mark.parametrize(("place", "proof"), [("cache", "git-sha1"), ("plain", "none"), ("downloaded", "etag")])
def test_weights_that_are_no_safetensors_are_evidence_too(model: Model, name: str, place: str, proof: str) -> None:
    files = {name: b"GGUF" + bytes(range(256)) * 4096, "config.json": b"{}"}
    if place == "cache":
        folder = write_cache(model.local, REPO, COMMIT, files)
    else:
        folder = write_folder(model.local.parent / "plain", files)
    if place == "downloaded":
        write_download_metadata(folder, COMMIT, files)
    required = Options(verify="require")
    assert fastload.verify(folder).evidence == proof
    if proof == "none":
        with pytest.raises(IntegrityError, match="nothing proves"):
            fastload.verify(folder, options=required)
    assert fastload.verify(folder, record=True).recorded
    recorded = "manifest" if place == "cache" else "manifest (recorded)"
    assert fastload.verify(folder, options=required).evidence == recorded
    flip(folder / name, 9)
    with pytest.raises(IntegrityError, match="BLAKE3"):
        fastload.verify(folder, options=required)


def test_what_is_warmed_as_gguf_is_evidence(model: Model) -> None:
    write_folder(model.shared / "org/name", {"q.gguf": b"GGUF" + bytes(1 << 10), "config.json": b"{}"})
    fastload.warm(REPO, include="*.gguf", options=model.options)
    assert fastload.verify(REPO, options=replace(model.options, tiers="local", verify="require")).evidence == "manifest"


@pytest.mark.parametrize("which", ["all", "one"])
def test_what_nobody_knew_in_a_cache_is_called_recorded(model: Model, which: str) -> None:
    """Real files, where the hub's client would have left links to blobs."""
    folder = model.cached()
    for path in sorted(folder.glob("model-0000*")) if which == "all" else [folder / SHARD]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert fastload.load(folder).report.evidence == "none"
    assert fastload.verify(folder, record=True).recorded
    assert fastload.verify(folder).evidence == "manifest (recorded)"
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"
    of_other = fastload.load(folder, tensors="2.*").report.evidence
    assert of_other == ("manifest (recorded)" if which == "all" else "manifest")
