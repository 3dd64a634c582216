"""The manifest in a plain folder: one that is passed over is said to be, and a newer one leaves no moment without."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from advice import follow_advice
from fastload import FastloadError, IntegrityError, Options
from fastload._verify.manifest import dump_manifest, parse_manifest
from fastload.cli import main
from proven_models import REPO, Model, flip
from stored_models import COMMIT, write_download_metadata
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
PARTS = ("part1.safetensors", "part2.safetensors")


def test_whoever_loads_while_a_folder_is_recorded_again_finds_a_manifest(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at after each step of the recording."""
    folder = model.recorded()
    (folder / "config.json").write_text('{"new": true}')
    seen: list[str] = []

    def watched(name: str) -> None:
        real = getattr(os, name)

        def step(*paths: str, **options: object) -> None:
            real(*paths, **options)
            if str(paths[-1]).endswith(".json"):
                seen.append(fastload.load(folder, tensors="1.0").report.evidence)

        monkeypatch.setattr(os, name, step)

    for name in ("replace", "rename", "unlink", "remove"):
        watched(name)
    before = sorted(os.listdir(folder / ".fastload/manifests"))
    assert fastload.verify(folder, record=True).recorded
    assert len(seen) >= 4 and set(seen) == {"manifest (recorded)"}
    after = os.listdir(folder / ".fastload/manifests")
    assert len(after) == 1 and after != before


def _two(manifests: Path) -> str:
    path = next(manifests.iterdir())
    path.with_name(f"{'b' * 40}.json").write_bytes(path.read_bytes().replace(b'"recorded"', b'"somebody"'))
    return "2 manifests that differ"


def _of_a_group(manifests: Path) -> str:
    next(manifests.iterdir()).chmod(0o664)
    return "may be written by others"


def _in_an_open_folder(manifests: Path) -> str:
    manifests.chmod(0o777)
    return "may be written by others"


@pytest.mark.parametrize("spoil", [_two, _of_a_group, _in_an_open_folder])
def test_a_manifest_that_is_passed_over_is_said_to_be(
    model: Model, spoil: Callable[[Path], str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = model.recorded()
    why = spoil(folder / ".fastload/manifests")
    report = fastload.load(folder).report
    assert report.evidence == "none"
    assert why in report.evidence_reason and ".fastload/manifests" in report.evidence_reason
    assert why in caplog.text
    with pytest.raises(IntegrityError, match=why):
        fastload.load(folder, verify="require")
    with pytest.raises(IntegrityError, match=why):
        fastload.verify(folder, options=Options(verify="require"))
    caplog.clear()
    assert main(["verify", str(folder)]) == 0
    assert why in caplog.text


def _for_all(manifests: Path) -> None:
    for path in (manifests.parent, *manifests.parent.rglob("*")):
        path.chmod(path.stat().st_mode | 0o022)


def _with_its_stamps(manifests: Path) -> None:
    _of_a_group(manifests)
    (manifests.parent / "stamps").chmod(0o775)


def _of_somebody_else(manifests: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give a folder away")
    os.chown(manifests, 65534, 65534)
    manifests.chmod(0o775)


def _behind_a_link(manifests: Path) -> None:
    manifests.rename(manifests.parent / "elsewhere")
    manifests.symlink_to("elsewhere")


def _behind_a_link_out(manifests: Path) -> None:
    ours = manifests.parent
    ours.rename(ours.parent.parent / "elsewhere")
    ours.symlink_to(ours.parent.parent / "elsewhere")


@pytest.mark.parametrize(
    "spoil",
    [
        _two,
        _of_a_group,
        _in_an_open_folder,
        _for_all,
        _with_its_stamps,
        _of_somebody_else,
        _behind_a_link,
        _behind_a_link_out,
    ],
)
@pytest.mark.parametrize("is_changed", [False, True])
def test_whoever_does_what_the_warning_says_has_evidence_again(
    model: Model, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture, *, is_changed: bool
) -> None:
    """Word by word, once."""
    folder = model.recorded()
    spoil(folder / ".fastload/manifests")
    if is_changed:
        (folder / "config.json").write_text('{"new": true}')
    fastload.load(folder)
    follow_advice(caplog.text, os.environ)
    caplog.clear()
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"
    assert fastload.verify(folder, options=Options(verify="require")).evidence == "manifest (recorded)"
    assert not caplog.text


def test_two_manifests_that_say_the_same_are_one(model: Model) -> None:
    folder = model.recorded()
    path = next((folder / ".fastload/manifests").iterdir())
    path.with_name(f"{'b' * 40}.json").write_bytes(path.read_bytes())
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"


@pytest.mark.parametrize("source", ["hub", "local", "shared:/mnt/models", "https://huggingface.co"])
def test_one_that_was_made_by_hand_is_worth_what_its_maker_has_seen(model: Model, source: str) -> None:
    """Where the bytes came from, nothing in a plain folder says but the manifest itself; notes of a download do."""
    folder = model.downloaded()
    assert fastload.verify(folder, record=True).recorded
    path = next((folder / ".fastload/manifests").iterdir())
    path.write_bytes(dump_manifest(replace(parse_manifest(path.read_bytes(), path=str(path)), source=source)))
    for evidence in ("manifest", "manifest (recorded)"):
        assert fastload.load(folder, verify="require").report.evidence == evidence
        assert fastload.load(folder, verify="require", tensors="1.0").report.evidence == evidence
        assert fastload.verify(folder, options=Options(verify="require")).evidence == evidence
        shutil.rmtree(folder / ".cache", ignore_errors=True)


def _lose(folder: Path) -> str:
    (folder / PARTS[0]).unlink()
    return PARTS[0]


def _add(folder: Path) -> str:
    (folder / "more.safetensors").write_bytes(one_tensor("more"))
    return "more.safetensors"


def _write_later(folder: Path) -> str:
    flip(folder / PARTS[0], 5 << 20)
    os.utime(folder / PARTS[0], (2 << 30, 2 << 30))
    return PARTS[0]


def _cut(folder: Path) -> str:
    os.truncate(folder / PARTS[0], 1 << 20)
    return PARTS[0]


@pytest.mark.parametrize("spoil", [_lose, _add, _write_later, _cut])
@pytest.mark.parametrize("has_notes", [False, True])
def test_what_warm_has_brought_into_a_folder_stays_what_it_was(
    model: Model, tmp_path: Path, spoil: Callable[[Path], str], *, has_notes: bool
) -> None:
    """Nobody has recorded it, who might have meant it otherwise: all of it is damage, and is not recorded anew."""
    model.files.pop(INDEX_NAME)
    model.files |= zip(PARTS, map(model.files.pop, SHARDS), strict=True)
    model.warmed()
    folder = tmp_path / "real"
    assert main(["warm", REPO, "--plain", str(folder), "--local", str(model.local), "--tiers", "local"]) == 0
    if has_notes:
        write_download_metadata(folder, COMMIT, model.files)
    name = spoil(folder)
    with pytest.raises(IntegrityError, match=name) as caught:
        fastload.load(folder)
    assert "--record" not in caught.value.hint
    with pytest.raises(FastloadError) as refused:
        fastload.warm(folder, options=model.options)
    assert "--record" not in str(refused.value)
    with pytest.raises(IntegrityError, match=name):
        fastload.verify(folder, record=True)
