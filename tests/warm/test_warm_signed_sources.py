"""With a key set: which of several sources is at fault, and what none of them can be blamed for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import snapshot_download

import fastload
from fastload import IntegrityError, NetworkError, Options, SignatureError, UnsupportedError, UsageError
from hub_faults import Cut
from hub_server import HubServer, Repo
from signing import IGNORED, pem_of, signed, write_key
from stored_models import model_files, write_cache, write_folder
from warming import content, environment
from writing import one_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("cryptography", reason="signatures need cryptography")

REPO = "org/name"
CERTIFICATE = Path(__file__).parents[1] / "verify" / "golden" / "oms" / "certificate.sig"
_WITHOUT_CRYPTOGRAPHY = """
import sys
sys.modules["cryptography"] = sys.modules["cryptography.exceptions"] = None
from fastload.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """It has what was signed."""
    with HubServer({REPO: Repo(signed(model_files()))}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def options(tmp_path: Path) -> Options:
    local, shared = str(tmp_path / "local"), str(tmp_path / "shared")
    return Options(local=local, shared=shared, signature_key=write_key(tmp_path))


def share(tmp_path: Path, hub: HubServer, changed: dict[str, bytes | None]) -> None:
    """A copy of what the hub had first on the mount; ``None``: it has lost that file."""
    files = {**hub.repos[REPO].files, **changed}
    there = {name: raw for name, raw in files.items() if raw is not None}
    write_cache(tmp_path / "shared", REPO, hub.repos[REPO].commit, there)


def test_a_copy_that_is_signed_by_a_certificate_says_nothing_of_others(
    options: Options, hub: HubServer, tmp_path: Path
) -> None:
    share(tmp_path, hub, {"model.sig": CERTIFICATE.read_bytes()})
    snapshot = fastload.warm(REPO, options=options)
    assert content(Path(snapshot.path)) == hub.repos[REPO].files
    assert snapshot.report is not None and "certificate" in snapshot.report.reader_reason
    with pytest.raises(UnsupportedError, match="certificate"):
        fastload.warm(REPO, options=replace(options, local=f"{options.local}2", tiers="local,shared"))


def test_an_error_says_whose_copy_is_not_signed(options: Options, hub: HubServer, tmp_path: Path) -> None:
    hub.repos[REPO].push(model_files())
    share(tmp_path, hub, {"model.sig": None})
    with pytest.raises(SignatureError, match="no signature") as caught:
        fastload.warm(REPO, options=options)
    assert f"It is so on shared:{options.shared}" in str(caught.value)
    assert "hub was passed over: " in str(caught.value)


def test_of_a_path_it_says_that_it_is_that_path(options: Options, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", model_files())
    with pytest.raises(SignatureError, match=r"no signature.*It is so at the path that was given"):
        fastload.warm(folder, options=options)


def test_an_error_says_whose_copy_has_lost_something(options: Options, hub: HubServer, tmp_path: Path) -> None:
    share(tmp_path, hub, {"tokenizer.json": None})
    with pytest.raises(IntegrityError, match=r"tokenizer\.json.*no file") as caught:
        fastload.warm(REPO, options=replace(options, tiers="local,shared"))
    assert f"It is so on shared:{options.shared}" in str(caught.value)


def test_a_hub_that_breaks_off_does_not_hide_that_the_mount_was_refused(
    options: Options, hub: HubServer, tmp_path: Path
) -> None:
    """To try again may help; but who repairs the mount needs no hub."""
    share(tmp_path, hub, {"model.sig": None})
    hub.faults.add(Cut(after_bytes=0), path="*/tree/*", times=None)
    with pytest.raises(NetworkError) as caught:
        fastload.warm(REPO, options=options)
    assert f"shared:{options.shared} was passed over: 'org/name/model.sig': found no signature" in str(caught.value)


@pytest.mark.parametrize("kind", ["none", "private", "two", "rsa"])
def test_a_key_that_is_none_is_told_before_anybody_is_asked(
    options: Options, hub: HubServer, tmp_path: Path, kind: str
) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    good = Path(options.signature_key or "").read_bytes()
    pem = {
        "none": b"",
        "private": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "two": good + good,
        "rsa": pem_of(rsa.generate_private_key(65537, 2048)),
    }[kind]
    (tmp_path / "other.pem").write_bytes(pem)
    with pytest.raises(UnsupportedError if kind == "rsa" else UsageError, match="key"):
        fastload.warm(REPO, options=replace(options, signature_key=str(tmp_path / "other.pem")))
    assert hub.requests == []


def test_without_cryptography_nobody_is_asked_either(options: Options, hub: HubServer) -> None:
    words = ["warm", REPO, "--local", options.local or "", "--signature-key", options.signature_key or ""]
    command = [sys.executable, "-c", _WITHOUT_CRYPTOGRAPHY, *words]
    environ = environment(HF_ENDPOINT=hub.url)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 20 and "pip install" in done.stderr, done.stderr
    assert hub.requests == []


def test_what_hf_download_had_left_when_the_model_was_signed_is_not_missed(
    options: Options, hub: HubServer, tmp_path: Path
) -> None:
    """Its own listing and notes lie in the folder, and no tool brings them to others."""
    hub.repos[REPO].push(model_files(1) | {"tokenizer.model": b"spm"})
    folder = Path(snapshot_download(REPO, local_dir=tmp_path / "shared/name", endpoint=hub.url))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any("trees/" in name for name in files) or any("tokenizer.model.metadata" in name for name in files)
    write_folder(folder, {"model.sig": signed(files)["model.sig"]})
    snapshot = fastload.warm("name", options=replace(options, tiers="local,shared"))
    assert snapshot.report is not None and snapshot.report.evidence == "signature"
    assert fastload.warm("name", options=replace(options, tiers="local,shared")).path == snapshot.path
    hub.repos[REPO].push(content(Path(snapshot.path)))
    there = fastload.warm(REPO, options=options)
    assert content(Path(there.path)) == content(Path(snapshot.path))
    assert fastload.verify(REPO, options=replace(options, tiers="local")).evidence == "signature"


def test_an_empty_file_that_nobody_signs_makes_the_rest_no_less_known(options: Options, tmp_path: Path) -> None:
    """By shards, empty files are in no signature."""
    files = signed({"model.safetensors": one_tensor(), "config.json": b"{}"}, IGNORED)
    write_folder(tmp_path / "shared/name", {**files, "__init__.py": b""})
    report = fastload.warm("name", options=replace(options, tiers="local,shared")).report
    assert report is not None and report.evidence == "signature"
