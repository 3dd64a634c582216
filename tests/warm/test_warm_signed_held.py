"""What ``warm`` finds in its place is held to the key too, by what is known of it: the weights are not read again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError, ModelNotFoundError, Options, SignatureError
from hub_server import HubServer, Repo
from signing import sign, signed, write_key
from stored_models import COMMIT, model_files, write_cache, write_download_metadata, write_folder
from warming import MIB, Tiers, content, large_shard, tree
from writing import one_tensor

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("cryptography", reason="signatures need cryptography")

REPO = "org/name"
SHARD = "model-00001-of-00002.safetensors"
GOLDEN = Path(__file__).parents[1] / "verify" / "golden" / "oms"


@pytest.fixture
def options(tmp_path: Path) -> Options:
    local, shared = str(tmp_path / "local"), str(tmp_path / "shared")
    return Options(local=local, shared=shared, tiers="local,shared")


@pytest.fixture
def keyed(options: Options, tmp_path: Path) -> Options:
    return replace(options, signature_key=write_key(tmp_path))


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How much was read by system calls that name an offset, as all reads of weights do."""
    counted: list[int] = []
    preadv = os.preadv

    def count(*words: object) -> int:
        counted.append(preadv(*words))  # type: ignore[arg-type]
        return counted[-1]

    monkeypatch.setattr(os, "preadv", count)
    return lambda: sum(counted)


def test_what_is_held_and_signed_is_answered_without_reading_it(
    options: Options, keyed: Options, tmp_path: Path, read_bytes: Callable[[], int]
) -> None:
    files = signed(model_files() | {SHARD: large_shard(9 * MIB, 1)})
    write_cache(tmp_path / "shared", REPO, COMMIT, files)
    snapshot = fastload.warm(REPO, options=options)
    before, read = tree(tmp_path / "local/models--org--name"), read_bytes()
    again = fastload.warm(REPO, options=keyed)
    assert (again.path, again.report) == (snapshot.path, None)
    assert tree(tmp_path / "local/models--org--name") == before
    assert read_bytes() - read < MIB
    with pytest.raises(SignatureError):
        fastload.warm(REPO, options=replace(keyed, signature_key=write_key(tmp_path, "somebody")))


@pytest.mark.parametrize("to", ["local", "cache", "plain"])
def test_what_was_brought_without_a_key_and_is_not_signed_is_refused(tmp_path: Path, to: str) -> None:
    words = {"local": [], "cache": ["--to", tmp_path / "cache"], "plain": ["--plain", tmp_path / "plain"]}[to]
    with HubServer({REPO: Repo(model_files())}) as hub:
        tiers = Tiers(tmp_path, tiers="local,shared,hub", more={"HF_ENDPOINT": hub.url})
        snapshot = tiers.warm(REPO, *words)
        served = hub.served_bytes("/resolve/") + hub.served_bytes("/cdn/")
        for more in ([], ["--dry-run"], ["--link", tmp_path / "link"]):
            done = tiers.run("warm", REPO, *words, *more, "--signature-key", write_key(tmp_path))
            assert done.returncode == 18 and done.stdout == "", done.stderr
            assert "model.sig" in done.stderr
        assert hub.served_bytes("/resolve/") + hub.served_bytes("/cdn/") == served
    assert not (tmp_path / "link").is_symlink()
    assert content(snapshot) == model_files()


@pytest.mark.parametrize("to", ["local", "plain"])
def test_what_was_brought_without_a_key_and_is_not_what_was_signed_is_refused(
    options: Options, keyed: Options, tmp_path: Path, to: str
) -> None:
    """By its manifest: the weights are read by nobody."""
    files = signed(model_files())
    folder = write_folder(tmp_path / "shared/name", files | {SHARD: model_files(1)[SHARD]})
    if to == "local":
        fastload.warm("name", options=options)
        with pytest.raises(IntegrityError, match=SHARD):
            fastload.warm("name", options=keyed)
        return
    tiers = Tiers(tmp_path)
    tiers.warm(folder, "--plain", tmp_path / "plain")
    done = tiers.run("warm", folder, "--plain", tmp_path / "plain", "--signature-key", keyed.signature_key)
    assert done.returncode == 13 and SHARD in done.stderr, done.stderr


def test_a_link_that_leads_to_another_blob_is_not_what_was_signed(
    options: Options, keyed: Options, tmp_path: Path
) -> None:
    write_cache(tmp_path / "shared", REPO, COMMIT, signed(model_files()))
    snapshot = Path(fastload.warm(REPO, options=options).path)
    assert fastload.warm(REPO, options=keyed).path == str(snapshot)
    other = "model-00002-of-00002.safetensors"
    (snapshot / SHARD).unlink()
    (snapshot / SHARD).symlink_to(os.readlink(snapshot / other))
    with pytest.raises(IntegrityError, match=SHARD):
        fastload.warm(REPO, options=keyed)


def test_a_weight_that_another_tool_added_must_be_signed(options: Options, keyed: Options, tmp_path: Path) -> None:
    write_cache(tmp_path / "shared", REPO, COMMIT, signed(model_files()))
    snapshot = Path(fastload.warm(REPO, options=options).path)
    (snapshot / "model.bin").write_bytes(b"pickled")
    with pytest.raises(SignatureError, match=r"model\.bin"):
        fastload.warm(REPO, options=keyed)


def test_what_is_added_to_what_is_not_signed_gets_no_ref(tmp_path: Path) -> None:
    """The hub's client brings every file; what it has left in the snapshot, a load with the key refuses."""
    files = signed(model_files())
    with HubServer({REPO: Repo(files | {"pytorch_model.bin": b"not what anybody signed"})}) as hub:
        more = {"HF_ENDPOINT": hub.url, "FASTLOAD_SIGNATURE_KEY": write_key(tmp_path)}
        tiers = Tiers(tmp_path, tiers="local,hub", more=more)
        commit = hub.repos[REPO].commit
        write_cache(tiers.local, REPO, commit, hub.repos[REPO].files, ref=None)
        done = tiers.run("warm", REPO)
    assert done.returncode == 18 and "pytorch_model.bin" in done.stderr, done.stderr
    assert not (tiers.repo(REPO) / "refs").exists()


def test_of_what_was_signed_by_shards_the_signature_alone_is_looked_at(options: Options, tmp_path: Path) -> None:
    """No digest that anybody has noted is one of these: a load reads it, and finds out."""
    keyed = replace(options, signature_key=str(GOLDEN / "p256.pub.pem"))
    folder = shutil.copytree(GOLDEN / "model", tmp_path / "shared/name")
    shutil.copy(GOLDEN / "shards-sha256-p256.sig", folder / "model.sig")
    shard = folder / "model.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    snapshot = fastload.warm("name", options=options)
    assert fastload.warm("name", options=keyed).path == snapshot.path
    with pytest.raises(IntegrityError):
        fastload.load("name", options=replace(keyed, tiers="local"))
    shard.write_bytes(raw + b"longer")
    fastload.warm("name", options=options)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        fastload.warm("name", options=keyed)


def test_a_commit_that_was_signed_later_is_another_one(tmp_path: Path) -> None:
    with HubServer({REPO: Repo(model_files())}) as hub:
        tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
        tiers.warm(REPO)
        hub.repos[REPO].push(signed(model_files()))
        snapshot = tiers.warm(REPO, "--signature-key", write_key(tmp_path))
        assert snapshot.name == hub.repos[REPO].commit and (snapshot / "model.sig").exists()


def test_a_plain_folder_on_the_tier_itself_is_held_to_the_key(
    options: Options, keyed: Options, tmp_path: Path, read_bytes: Callable[[], int]
) -> None:
    folder = write_folder(tmp_path / "local/org/name", model_files() | {SHARD: large_shard(9 * MIB, 1)})
    assert fastload.warm(REPO, options=options).path == str(folder)
    with pytest.raises(SignatureError, match="no signature"):
        fastload.warm(REPO, options=keyed)
    sign(folder)
    assert fastload.warm(REPO, options=keyed).path == str(folder)
    write_folder(folder / "drafts", {"pytorch_model.bin": b"not what anybody signed"})
    with pytest.raises(SignatureError, match=r"drafts/pytorch_model\.bin"):
        fastload.warm(REPO, options=keyed)
    shutil.rmtree(folder / "drafts")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(IntegrityError, match=r"tokenizer\.json.*no file"):
        fastload.warm(REPO, options=keyed)
    assert fastload.warm(REPO, exclude="tokenizer*", options=keyed).path == str(folder)
    assert read_bytes() < MIB


def test_what_was_recorded_of_a_folder_does_not_hide_what_came_later(keyed: Options, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "local/org/name", {"model.safetensors": one_tensor(), "config.json": b"{}"})
    assert fastload.verify(folder, record=True).recorded
    write_folder(folder, signed({"model.safetensors": one_tensor(), "config.json": b"{}"}))
    assert fastload.warm(REPO, options=keyed).path == str(folder)
    write_folder(folder, {"drafts/pytorch_model.bin": b"not what anybody signed"})
    with pytest.raises(SignatureError, match="drafts"):
        fastload.warm(REPO, options=keyed)


def test_a_manifest_makes_nothing_empty_so_that_it_need_not_be_signed(keyed: Options, tmp_path: Path) -> None:
    files = signed({"model.safetensors": one_tensor()})
    folder = write_folder(tmp_path / "local/org/name", {**files, "config.json": b""})
    assert fastload.verify(folder, record=True).recorded
    assert fastload.warm(REPO, options=keyed).path == str(folder)
    noted = (folder / "config.json").stat().st_mtime_ns
    (folder / "config.json").write_bytes(b"not what anybody signed")
    os.utime(folder / "config.json", ns=(noted, noted))
    with pytest.raises(SignatureError, match=r"config\.json"):
        fastload.warm(REPO, options=keyed)


def test_notes_of_a_download_that_are_not_what_was_signed_are_believed(keyed: Options, tmp_path: Path) -> None:
    files = {"model.safetensors": one_tensor(), "config.json": b"{}"}
    folder = write_folder(tmp_path / "local/org/name", signed(files))
    write_download_metadata(folder, COMMIT, {"model.safetensors": one_tensor("b")})
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        fastload.warm(REPO, options=keyed)
    write_download_metadata(folder, COMMIT, files)
    assert fastload.warm(REPO, options=keyed).path == str(folder)


def test_a_load_that_keeps_a_copy_holds_all_of_it_to_the_key(
    options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own proof compares what it reads, and that is neither a tokenizer nor a part that vLLM reads by itself."""
    folder = shutil.copytree(GOLDEN / "model", tmp_path / "shared/name")
    shutil.copy(GOLDEN / "files-blake3-p256.sig", folder / "model.sig")
    keyed = replace(options, signature_key=str(GOLDEN / "p256.pub.pem"))
    (folder / "extra/vocab.txt").write_bytes(b"what nobody signed, which is as long")
    for _ in range(2):
        assert fastload.load("name", options=keyed).report.evidence == "signature"
        with pytest.raises(ModelNotFoundError):
            fastload.resolve("name", options=replace(keyed, tiers="local"))
    assert "not kept on the local tier" in caplog.text and "vocab.txt" in caplog.text
    shutil.copy(GOLDEN / "model/extra/vocab.txt", folder / "extra/vocab.txt")
    assert fastload.load("name", options=keyed).report.tier.startswith("shared")
    assert fastload.resolve("name", options=keyed).tier == "local"
    assert fastload.load("name", options=replace(keyed, tiers="local")).report.evidence == "signature"
