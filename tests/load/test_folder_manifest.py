"""The manifest in a plain folder: one that is passed over is said to be, and a newer one leaves no moment without."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError, Options
from fastload.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proven_models import Model


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


def test_two_manifests_that_say_the_same_are_one(model: Model) -> None:
    folder = model.recorded()
    path = next((folder / ".fastload/manifests").iterdir())
    path.with_name(f"{'b' * 40}.json").write_bytes(path.read_bytes())
    assert fastload.load(folder, verify="require").report.evidence == "manifest (recorded)"
