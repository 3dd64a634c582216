"""``fastload doctor MODEL`` beside ``fastload load MODEL``: where one says that all is well, the other one is."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from fastload.cli import main
from hanging import dead_mount, silent_file
from hub_server import HubServer, Repo
from stopwatch import Stopwatch
from stored_models import COMMIT, model_files, write_cache, write_folder
from warming import tree
from writing import pack

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/a"


@pytest.fixture(autouse=True)
def tiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty local tier, and no network."""
    monkeypatch.setenv("FASTLOAD_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "local"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)


def _doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["doctor", *words, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert isinstance(facts, dict)
    return code, facts


def _agrees(capsys: pytest.CaptureFixture[str], model: str, load_code: int) -> str:
    """The doctor ends with 22 where a load ends with ``load_code``; what it says is wrong."""
    assert main(["load", model, "--no-progress"]) == load_code
    code, facts = _doctor(capsys, model)
    (finding,) = [finding for finding in facts["findings"] if finding["severity"] == "fatal"]
    assert (code, facts["way"]) == (22, None)
    assert f"exit code {load_code}" in finding["why"]
    return str(finding["what"])


@pytest.mark.parametrize("beside", [True, False], ids=["beside shards", "beside nothing"])
def test_a_path_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], beside: int) -> None:
    """The folder above it is not what was asked for."""
    folder = tmp_path / "models"
    folder.mkdir()
    if beside:
        write_folder(folder, model_files())
    assert "models/typo" in _agrees(capsys, str(folder / "typo"), 12)


def test_a_proof_that_is_demanded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(write_folder(tmp_path / "plain", model_files()))
    assert _doctor(capsys, folder)[0] == 0
    monkeypatch.setenv("FASTLOAD_VERIFY", "require")
    assert "verify is require" in _agrees(capsys, folder, 13)
    assert main(["verify", folder, "--record"]) == 0
    assert _doctor(capsys, folder)[0] == 0


@pytest.mark.parametrize("reader", ["gds", "direct"])
def test_a_reader_that_is_demanded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    write_cache(tmp_path / "local", REPO, COMMIT, model_files())
    monkeypatch.setenv("FASTLOAD_READER", reader)
    if main(["load", REPO, "--no-progress"]) == 0:
        code, facts = _doctor(capsys, REPO)
        assert (code, facts["way"]["reader"]) == (0, reader)
    else:
        assert reader in _agrees(capsys, REPO, 20)


def test_a_reader_that_the_hub_cannot_serve(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTLOAD_READER", "buffered")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with HubServer({REPO: Repo(model_files())}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert "cannot read from the hub" in _agrees(capsys, REPO, 20)


def test_a_malformed_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "plain", {"model.safetensors": b"\xff" * 100})
    assert "header" in _agrees(capsys, str(folder), 17)


def test_a_name_in_two_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = pack({"a": ("U8", [1], b"x")})
    folder = write_folder(tmp_path / "plain", {"one.safetensors": shard, "two.safetensors": shard})
    _agrees(capsys, str(folder), 17)


class TestALostFile:
    """A snapshot with a manifest that lost a shard: a load brings it back, and the doctor writes nothing."""

    @pytest.fixture
    def lost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The file of the local tier that is gone; a mount has it."""
        write_cache(tmp_path / "mount", REPO, COMMIT, model_files())
        monkeypatch.setenv("FASTLOAD_SHARED", str(tmp_path / "mount"))
        assert main(["warm", REPO]) == 0
        snapshot = tmp_path / "local" / "models--org--a" / "snapshots" / COMMIT
        shard = next(iter(sorted(snapshot.glob("*.safetensors"))))
        os.unlink(os.path.realpath(shard))
        shard.unlink()
        return shard

    def test_another_tier_has_it(self, tmp_path: Path, lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = tree(tmp_path)
        code, facts = _doctor(capsys, REPO)
        assert (code, facts["way"]["tier"]) == (0, f"shared:{tmp_path / 'mount'}")
        assert tree(tmp_path) == before
        assert main(["load", REPO, "--no-progress"]) == 0
        assert lost.exists()

    @pytest.mark.usefixtures("lost")
    def test_no_other_tier_has_it(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("FASTLOAD_SHARED")
        _agrees(capsys, REPO, 13)


def test_a_damaged_header_is_not_marked_by_who_only_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cache(tmp_path / "local", REPO, COMMIT, model_files())
    assert main(["verify", REPO, "--record"]) == 0
    snapshot = tmp_path / "local" / "models--org--a" / "snapshots" / COMMIT
    blob = next(iter(sorted(snapshot.glob("*.safetensors")))).resolve()
    raw = bytearray(blob.read_bytes())
    raw[20] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(raw)
    before = tree(tmp_path)
    assert _doctor(capsys, REPO)[0] == 22
    assert tree(tmp_path) == before
    _agrees(capsys, REPO, 13)


class TestDeadMounts:
    """All tiers, the token and the manifests together cost no more than one of them."""

    @pytest.mark.parametrize("model", ["a-model", "org/a-model"])
    def test_what_is_looked_at_has_one_budget(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str
    ) -> None:
        dead, local = tmp_path / "dead", tmp_path / "local"
        dead.mkdir()
        write_cache(local, "org/a-model", COMMIT, model_files())
        monkeypatch.setenv("FASTLOAD_SHARED", str(dead))
        monkeypatch.setenv("FASTLOAD_MANIFESTS", str(dead / "manifests"))
        monkeypatch.setenv("HF_HOME", str(dead))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(dead / "token"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        main(["doctor", "/nowhere", "--json"])  # what takes time from here on is the mount, not an import
        with silent_file(dead / "token"), dead_mount(monkeypatch, str(dead)):
            with Stopwatch() as watch:
                code, facts = _doctor(capsys, model)
            assert watch.seconds < 4.7
        assert code == 22
        said = "\n".join(finding["what"] for finding in facts["findings"])
        assert f"the tier shared:{dead} could not be looked at: no answer within 3 s" in said
        assert "where tokens of the hub are kept" in said
        assert f"a load of {model} would fail" in said
