"""With a key set, only what its holder signed is loaded; bundles by the real model-signing package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import fastload
from fastload import IntegrityError, Options, SignatureError, UnsupportedError, UsageError
from hub_server import HubServer, Repo
from writing import one_tensor

pytest.importorskip("cryptography", reason="signatures need cryptography")

GOLDEN = Path(__file__).parents[1] / "verify" / "golden" / "oms"


def key(curve: str = "p256") -> Options:
    return Options(signature_key=str(GOLDEN / f"{curve}.pub.pem"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The signed model, with its signature by P-256."""
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "model", folder)
    shutil.copy(GOLDEN / "files-sha256-p256.sig", folder / "model.sig")
    return folder


def test_what_was_signed_is_loaded_by_its_signature(model: Path) -> None:
    weights = fastload.load(model, options=key(), verify="require")
    assert weights.report.evidence == "signature"
    assert weights.report.blocks_verified > 0


def test_another_key_a_missing_signature_and_an_unsigned_weight_are_refused(model: Path) -> None:
    with pytest.raises(SignatureError):
        fastload.load(model, options=key("p384"))
    (model / "extra.safetensors").write_bytes(one_tensor())
    with pytest.raises(SignatureError, match="extra"):
        fastload.load(model, options=key())
    (model / "extra.safetensors").unlink()
    (model / "model.sig").unlink()
    with pytest.raises(SignatureError, match="no signature") as caught:
        fastload.load(model, options=key())
    assert caught.value.exit_code == 18


def test_bytes_that_were_not_signed_are_wrong_bytes(model: Path) -> None:
    shard = next(model.glob("**/*.safetensors"))
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(IntegrityError, match="sha256"):
        fastload.load(model, options=key())


def test_digests_that_are_not_computed_while_reading_are_named(model: Path) -> None:
    shutil.copy(GOLDEN / "shards-sha256-p256.sig", model / "model.sig")
    with pytest.raises(UnsupportedError, match="sha256"):
        fastload.load(model, options=key())


def test_a_key_with_verification_off_is_a_contradiction(model: Path) -> None:
    with pytest.raises(UsageError, match="signature_key"):
        fastload.load(model, options=key(), verify="off")


def test_what_comes_from_the_hub_is_held_to_its_signature_too(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with HubServer({"org/name": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
        assert fastload.load("org/name", options=key()).report.evidence == "signature"
        with pytest.raises(SignatureError):
            fastload.load("org/name", options=key("p521"))
