"""The copy that a load with a key leaves is one that the next load with the key takes, or it leaves none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options
from hub_server import HubServer, Repo
from signing import sign, write_key
from stored_models import COMMIT, model_files, write_cache, write_folder

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"


@pytest.mark.parametrize("source", ["hub", "shared"])
def test_none_is_left_beside_what_nobody_has_signed(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = model_files()
    signed = sign(write_folder(tmp_path / "signed", files))
    files["model.sig"] = (signed / "model.sig").read_bytes()
    options = Options(
        local=str(tmp_path / "local"),
        shared=str(tmp_path / "shared"),
        tiers=("local", source),
        signature_key=str(write_key(tmp_path)),
        write_through="on",
    )
    repo = Repo(files)
    commit = repo.commit if source == "hub" else COMMIT
    if source == "shared":
        write_cache(tmp_path / "shared", REPO, COMMIT, files)
    there = {"config.json": files["config.json"], "pytorch_model.bin": b"not what anybody signed"}
    snapshot = write_cache(tmp_path / "local", REPO, commit, there)
    with HubServer({REPO: repo}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for _ in range(2):
            report = fastload.load(REPO, options=options).report
            assert (report.tier.partition(":")[0], report.evidence) == (source, "signature")
            assert "pytorch_model.bin" in caplog.text
            assert {path.name for path in snapshot.iterdir()} == there.keys()
        (snapshot / "pytorch_model.bin").unlink()
        fastload.load(REPO, options=options)
        assert fastload.load(REPO, options=options).report.tier == "local"
