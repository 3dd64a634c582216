"""With a key set, only what its holder signed is loaded; bundles by the real model-signing package."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError, Options, SignatureError, UsageError
from fastload._fetch.evidence import signed
from fastload._verify.dsse import MAX_BUNDLE_BYTES
from fastload._verify.manifest import dump_manifest, parse_manifest, plain_commit
from fastload.cli import main
from hub_server import HubServer, Repo
from models import assert_same
from proven_models import READERS, flip
from signing import IGNORED, bundle_of, key_of, pem_of, resource, sign, statement_of, write_key
from signing import signed as signed_files
from stored_models import COMMIT, write_cache, write_folder
from writing import one_tensor, pack

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("cryptography", reason="signatures need cryptography")

OTHERS = (
    "files-blake2-p384.sig",
    "files-blake3-p256.sig",
    "shards-blake2-p521.sig",
    "shards-blake3-p384.sig",
    "shards-sha256-p256.sig",
)
"""By the real model-signing: not one sha256 of each file."""
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


@pytest.mark.parametrize("name", ["older-sha256-q256", "older-blake2-q256"])
def test_what_was_signed_before_model_signing_had_a_format_is_loaded_by_its_signature(model: Path, name: str) -> None:
    shutil.copy(GOLDEN / f"{name}.sig", model / "model.sig")
    with pytest.raises(SignatureError, match=r"scratch\.txt.*leaves out"):  # it does not say that it was left out
        fastload.load(model, options=key("q256"))
    (model / "scratch.txt").unlink()
    assert fastload.load(model, options=key("q256"), verify="require").report.evidence == "signature"
    flip(model / "model.safetensors", 2000)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        fastload.load(model, options=key("q256"))


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


@pytest.mark.parametrize("bundle", OTHERS)
def test_shards_and_other_digests_are_compared_in_the_same_pass(model: Path, bundle: str, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / bundle, model / "model.sig")
    options = replace(key(bundle.rpartition("-")[2].removesuffix(".sig")), manifests=str(tmp_path / "manifests"))
    expected = fastload.load(model)
    shard = next(model.glob("**/*.safetensors"))
    for _ in range(2):
        weights = fastload.load(model, options=options, verify="require")
        assert_same(weights, expected)
        assert (weights.report.evidence, weights.report.blocks_verified > 0) == ("signature", True)
        assert weights.report.bytes_read < 2 * shard.stat().st_size + 65536  # one pass
        assert "sign whole files" in weights.report.evidence_reason
    assert dict(fastload.stream(model, options=options, verify="require")).keys() == expected.keys()
    found = fastload.verify(model, options=options, record=True)
    assert (found.evidence, found.findings, found.recorded) == ("signature", (), False)
    assert not (tmp_path / "manifests").exists()  # it could prove nothing of what was signed
    whole = shard.read_bytes()
    for content in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:9] + bytes([whole[9] ^ 1]) + whole[10:]):
        shard.write_bytes(content)
        for reader in READERS:
            with pytest.raises(IntegrityError):
                fastload.load(model, options=options, reader=reader)
        with pytest.raises(IntegrityError) as caught:
            fastload.verify(model, options=options)
        assert [model / finding.path for finding in caught.value.findings] == [shard]


@pytest.mark.parametrize("change", [b"", b"longer"], ids=["cut", "longer"])
def test_the_length_of_what_was_signed_by_shards_is_signed_too(tmp_path: Path, change: bytes) -> None:
    tensors = pack({"a": ("U8", [150], bytes(range(150)))})
    folder = write_folder(tmp_path / "shards", {"model.safetensors": tensors})
    names = [f"model.safetensors:{at}:{min(at + 100, len(tensors))}" for at in range(0, len(tensors), 100)]
    parts = [tensors[at : at + 100] for at in range(0, len(tensors), 100)]
    digests = [hashlib.sha256(part).hexdigest() for part in parts]
    entries = [resource(name, "sha256-sharded-100", digest) for name, digest in zip(names, digests, strict=True)]
    (folder / "model.sig").write_bytes(bundle_of(statement_of(entries, method="shards", shard_size=100)))
    (tmp_path / "key.pem").write_bytes(pem_of(key_of()))
    options = Options(signature_key=str(tmp_path / "key.pem"))
    assert fastload.load(folder, options=options).report.evidence == "signature"
    other = pack({"a": ("U8", [156], bytes(range(156)))}) if change else pack({"a": ("U8", [50], bytes(range(50)))})
    (folder / "model.safetensors").write_bytes(other)
    with pytest.raises(IntegrityError):
        fastload.load(folder, options=options)
    (folder / "model.safetensors").write_bytes(tensors)
    mount = write_folder(tmp_path / "mount/shards", {"model.safetensors": tensors})
    (folder / "model.safetensors").write_bytes(other)
    repairing = replace(options, shared=str(mount.parent), tiers="shared")
    assert fastload.verify(folder, repair=True, options=repairing).findings[0].repaired
    assert (folder / "model.safetensors").read_bytes() == tensors


def test_a_key_with_verification_off_is_a_contradiction(model: Path) -> None:
    with pytest.raises(UsageError, match="signature_key"):
        fastload.load(model, options=key(), verify="off")


def test_a_weight_that_a_manifest_passes_over_must_be_signed_too(tmp_path: Path) -> None:
    folder = sign(write_folder(tmp_path / "one", {"a.safetensors": one_tensor("a")}))
    assert fastload.verify(folder, record=True).recorded
    (folder / "b.safetensors").write_bytes(one_tensor("b"))
    for model in (folder, folder / "b.safetensors"):
        with pytest.raises(SignatureError, match="leaves out"):
            fastload.load(model, options=Options(signature_key=str(tmp_path / "key.pem")))


@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin", "modeling.py", "rng_state.pth"])
def test_a_manifest_makes_no_file_empty_that_need_not_be_signed_then(tmp_path: Path, name: str) -> None:
    """It came with the files, maybe from a stranger."""
    index = {"pytorch_model.bin.index.json": b'{"weight_map": {"a": "rng_state.pth"}}'}
    files = signed_files({"model.safetensors": one_tensor(), **index}, [*IGNORED, "rng_state.pth"])
    options = Options(signature_key=write_key(tmp_path))
    folder = write_folder(tmp_path / "model", {**files, name: b""})
    assert fastload.verify(folder, record=True).recorded
    (path,) = (folder / ".fastload/manifests").iterdir()
    path.write_bytes(dump_manifest(replace(parse_manifest(path.read_bytes(), path=str(path)), source="hub")))
    assert fastload.load(folder, options=options).report.evidence == "signature"
    (folder / name).write_bytes(b"not what anybody signed")
    for check in (fastload.load, fastload.verify):
        with pytest.raises(SignatureError, match=re.escape(name)):
            check(folder, options=options)


@pytest.mark.parametrize("left", [".cache/huggingface/trees/c0ffee.json", "sub/.git/notes.txt", "._notes.txt"])
def test_what_tools_keep_for_themselves_is_not_missed_where_it_was_signed_with_the_model(
    tmp_path: Path, left: str
) -> None:
    """``hf download --local-dir`` leaves such in the folder that is signed then."""
    folder = write_folder(tmp_path / "model", signed_files({"model.safetensors": one_tensor(), left: b"{}"}))
    options = Options(signature_key=write_key(tmp_path))
    assert fastload.verify(folder, options=options).evidence == "signature"
    (folder / left).unlink()
    assert fastload.verify(folder, options=options).evidence == "signature"


def test_a_part_that_the_signature_cannot_prove_is_not_loaded(tmp_path: Path) -> None:
    two = pack({"a": ("U8", [1], b"a"), "b": ("U8", [1], b"b")})
    folder = sign(write_folder(tmp_path / "two", {"model.safetensors": two}))
    options = Options(signature_key=str(tmp_path / "key.pem"))
    with pytest.raises(IntegrityError, match="only a part"):
        fastload.load(folder, tensors="a", options=options)
    apart = replace(options, manifests=str(tmp_path / "manifests"))
    fastload.load(folder, options=apart)
    assert fastload.load(folder, tensors="a", options=apart).report.evidence == "signature"


def test_a_signed_weight_that_is_lost_is_missing_not_left_out(tmp_path: Path) -> None:
    folder = sign(write_folder(tmp_path / "two", {"a.safetensors": one_tensor("a"), "b.safetensors": one_tensor("b")}))
    options = Options(signature_key=str(tmp_path / "key.pem"))
    assert sorted(fastload.load(folder, options=options)) == ["a", "b"]
    (folder / "b.safetensors").unlink()
    with pytest.raises(IntegrityError, match="no file"):
        fastload.load(folder, options=options)


def test_a_manifest_beside_signed_weights_proves_nothing_and_one_apart_does(tmp_path: Path) -> None:
    """The attack: right sha256, wrong blocks, delivered together with weights that have these blocks."""
    evil = write_folder(tmp_path / "signed", {"model.safetensors": one_tensor("a", b"\4\5\6\7")})
    assert fastload.verify(evil, record=True).recorded
    path = next((evil / ".fastload/manifests").iterdir())
    lie = parse_manifest(path.read_bytes(), path=str(path))
    (evil / "model.safetensors").write_bytes(one_tensor("a"))
    sign(evil)
    right = {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in evil.glob("*.safetensors")}
    files = tuple(replace(file, sha256=right[file.path], git_sha1=None) for file in lie.files)
    path.write_bytes(dump_manifest(replace(lie, files=files, commit=plain_commit(files))))
    shutil.rmtree(evil / ".fastload/stamps")  # which would tell that it was written since
    (evil / "model.safetensors").write_bytes(one_tensor("a", b"\4\5\6\7"))
    assert fastload.load(evil).report.evidence.startswith("manifest")
    options = Options(signature_key=str(tmp_path / "key.pem"), manifests=str(tmp_path / "manifests"))
    with pytest.raises(IntegrityError, match="sha256"):
        fastload.load(evil, options=options)
    (evil / "model.safetensors").write_bytes(one_tensor("a"))
    serial = fastload.load(evil, options=options)
    assert "in the order of each file; a manifest was left" in serial.report.evidence_reason
    parallel = fastload.load(evil, options=options)
    assert (serial.report.evidence, parallel.report.evidence) == ("signature", "signature")
    assert "in parallel" in parallel.report.evidence_reason
    (evil / "model.safetensors").write_bytes(one_tensor("a", b"\4\5\6\7"))
    with pytest.raises(IntegrityError, match="BLAKE3"):
        fastload.load(evil, options=options)


def test_verify_holds_what_is_stored_to_its_signature(model: Path, tmp_path: Path) -> None:
    found = fastload.verify(model, options=key())
    assert (found.evidence, found.findings) == ("signature", ())
    with pytest.raises(SignatureError):
        fastload.verify(model, options=key("p384"))
    apart = replace(key(), manifests=str(tmp_path / "manifests"))
    assert fastload.verify(model, record=True, options=apart).recorded
    assert not (model / ".fastload").exists()
    assert "in parallel" in fastload.load(model, options=apart).report.evidence_reason
    shard = next(model.glob("**/*.safetensors"))
    flip(shard, shard.stat().st_size - 1)
    with pytest.raises(IntegrityError):
        fastload.verify(model, options=key())


def test_a_signed_load_leaves_the_manifest_that_says_where_the_bytes_came_from(model: Path, tmp_path: Path) -> None:
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path), tiers="local,shared")
    snapshot = Path(fastload.warm("model", options=options).path)
    (manifest,) = (snapshot.parent.parent / ".fastload/manifests").iterdir()
    before = manifest.read_bytes()
    signed = replace(options, signature_key=key().signature_key)
    assert fastload.load("model", options=signed).report.evidence == "signature"
    assert manifest.read_bytes() == before


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


def test_a_signature_may_be_a_link_that_stays_and_none_that_leads_out(model: Path) -> None:
    signature, inside, outside = model / "model.sig", model / ".gitattributes", model.parent / "its.sig"
    signature.rename(inside)  # where nothing need be signed
    signature.symlink_to(inside.name)
    assert fastload.load(model, options=key()).report.evidence == "signature"
    inside.rename(outside)
    signature.unlink()
    signature.symlink_to(outside)
    with pytest.raises(SignatureError, match=r"a link to .*its\.sig"):
        fastload.load(model, options=key())


def test_a_signature_that_is_far_too_long_does_not_hold(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.truncate(model / "model.sig", MAX_BUNDLE_BYTES + 1)
    for run in (fastload.load, fastload.verify):
        with pytest.raises(SignatureError, match="at most"):
            run(model, options=key())
    with HubServer({"org/name": Repo({"model.safetensors": one_tensor(), "model.sig": bytes(65)})}) as hub:
        monkeypatch.setattr(signed, "MAX_BUNDLE_BYTES", 64)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
        with pytest.raises(SignatureError, match="at most"):
            fastload.load("org/name", options=key())


def test_what_a_signed_load_says_makes_it_cheaper(model: Path, tmp_path: Path) -> None:
    report = fastload.load(model, options=key()).report
    assert "in the order of each file" in report.evidence_reason
    said = report.evidence_reason.partition("fastload ")[2]
    words = said.replace(" DIR", f" {tmp_path / 'apart'}").replace(" KEY", f" {key().signature_key}")
    assert main(shlex.split(words)) == 0
    assert not (model / ".fastload").exists()
    again = fastload.load(model, options=replace(key(), manifests=str(tmp_path / "apart"))).report
    assert (again.evidence, "in parallel" in again.evidence_reason) == ("signature", True)


def quantised(folder: Path) -> Path:
    """A signed model that says it is quantised, in a float dtype that could be cast."""
    config = b'{"quantization_config": {"bits": 4}}'
    weights = pack({"a": ("F16", [2], bytes(4))})
    return sign(write_folder(folder, {"model.safetensors": weights, "config.json": config, "tokenizer.json": b"{}"}))


def test_a_signed_config_that_is_lost_does_not_make_a_quantised_model_castable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = quantised(tmp_path / "model")
    options = Options(signature_key=str(tmp_path / "key.pem"))
    with pytest.raises(UsageError, match="quantization_config"):
        fastload.load(folder, options=options, dtype="F32")
    (folder / "config.json").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json.*no file"):
        fastload.load(folder, options=options, dtype="F32")
    assert fastload.load(folder, options=options).report.evidence == "signature"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with HubServer({"org/name": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
        with pytest.raises(IntegrityError, match=r"config\.json.*no file"):
            fastload.load("org/name", options=options, dtype="F32")


def test_verify_lists_signed_files_that_are_lost_and_repair_brings_them(tmp_path: Path) -> None:
    folder = quantised(tmp_path / "model")
    mount = shutil.copytree(folder, tmp_path / "mount/model")
    lost = ("config.json", "tokenizer.json")
    for name in lost:
        (folder / name).unlink()
    options = Options(
        signature_key=str(tmp_path / "key.pem"), shared=str(mount.parent), tiers="shared", manifests=str(tmp_path / "m")
    )
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(folder, options=options)
    assert [(finding.path, finding.found) for finding in caught.value.findings] == [(name, "no file") for name in lost]
    found = fastload.verify(folder, repair=True, record=True, options=options)
    assert [(finding.path, finding.repaired) for finding in found.findings] == [(name, True) for name in lost]
    assert [(folder / name).read_bytes() for name in lost] == [(mount / name).read_bytes() for name in lost]
    assert found.recorded
    assert fastload.verify(folder, options=options).findings == ()


def test_a_signed_file_that_nobody_wanted_there_is_not_lost(tmp_path: Path) -> None:
    quantised(tmp_path / "mount/model")
    key_path = str(tmp_path / "mount/key.pem")
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "mount"), tiers="local,shared")
    snapshot = Path(fastload.warm("model", exclude="tokenizer*", options=options).path)
    signed = replace(options, signature_key=key_path, tiers="local")
    assert fastload.verify("model", options=signed).findings == ()
    (snapshot / "config.json").unlink()
    with pytest.raises(IntegrityError, match="config"):
        fastload.verify("model", options=signed)


@pytest.mark.parametrize("what", ["nothing", "a folder", "far too long"])
def test_a_key_that_is_no_file_of_a_key_is_a_wrong_setting_and_not_a_malformed_model(
    model: Path, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "key.pem"
    if what == "a folder":
        path.mkdir()
    elif what == "far too long":
        path.write_bytes(bytes(1 << 20))
    for run in (fastload.load, fastload.verify):
        with pytest.raises(UsageError, match=r"signature_key.*key\.pem") as caught:
            run(model, options=Options(signature_key=str(path)))
        assert "incomplete" not in str(caught.value)


@pytest.mark.parametrize("hidden", [".git", ".cache"])
def test_weights_in_a_hidden_folder_are_not_signed_either(model: Path, hidden: str) -> None:
    write_folder(model / hidden / "x", {"model.safetensors": one_tensor()})
    with pytest.raises(SignatureError, match="leaves out"):
        fastload.load(model, subfolder=f"{hidden}/x", options=key())


@pytest.mark.parametrize("name", ["pytorch_model.bin", "2_Dense/pytorch_model.bin", "model.gguf"])
@pytest.mark.parametrize("ignored", ["the weight", "its folder", "nothing"])
def test_a_weight_of_another_format_is_signed_or_refused(tmp_path: Path, name: str, ignored: str) -> None:
    folder = sign(write_folder(tmp_path / "model", {"model.safetensors": one_tensor(), "config.json": b"{}"}))
    inside = f"drafts/{name}"
    if ignored != "nothing":
        names = ("config.json", "model.safetensors")
        entries = [resource(n, digest=hashlib.sha256((folder / n).read_bytes()).hexdigest()) for n in names]
        left_out = [*IGNORED, inside if ignored == "the weight" else "drafts"]
        (folder / "model.sig").write_bytes(bundle_of(statement_of(entries, ignore_paths=left_out)))
    options = Options(signature_key=str(tmp_path / "key.pem"))
    write_folder(folder, {inside: b"not what anybody signed"})
    for run in (
        lambda: fastload.load(folder, options=options, verify="require"),
        lambda: fastload.verify(folder, options=options),
    ):
        with pytest.raises(SignatureError, match=re.escape(inside)) as caught:
            run()
        assert caught.value.exit_code == 18
    assert main(["verify", str(folder), "--signature-key", str(tmp_path / "key.pem"), "--verify", "require"]) == 18


INDEX = "pytorch_model.bin.index.json"


def leaving_out(folder: Path, left_out: list[str]) -> Options:
    """Sign all that is in ``folder`` but what is ``left_out``, which is."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (folder / "model.sig").write_bytes(signed_files(files, [*IGNORED, *left_out])["model.sig"])
    return Options(signature_key=write_key(folder.parent), local=str(folder.parent / "local"))


@pytest.fixture(name="trained")
def some_trained(tmp_path: Path) -> Path:
    """What a Trainer saves, and a second copy of the weights."""
    files = {"model.safetensors": one_tensor(), "config.json": b"{}", "training_args.bin": b"1", "optimizer.pt": b"2"}
    index = json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}).encode()
    return write_folder(tmp_path / "model", {**files, "pytorch_model-00001-of-00001.bin": b"3", INDEX: index})


def test_the_state_of_a_training_may_be_left_out_of_a_signature(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = leaving_out(trained, ["training_args.bin", "optimizer.pt"])
    assert fastload.load(trained, options=options, verify="require").report.evidence == "signature"
    assert fastload.verify(trained, options=options).evidence == "signature"
    files = {path.name: path.read_bytes() for path in trained.iterdir()}
    with HubServer({"org/name": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert fastload.load("org/name", options=options).report.evidence == "signature"


@pytest.mark.parametrize("index", [INDEX, "model.safetensors.index.x.json"])
def test_but_not_where_an_index_makes_weights_of_it(trained: Path, monkeypatch: pytest.MonkeyPatch, index: str) -> None:
    """Whoever may write there chooses these weights, then."""
    (trained / index).write_text(json.dumps({"weight_map": {"a": "training_args.bin"}}))
    options = leaving_out(trained, ["training_args.bin"])
    runs: list[Callable[[], object]] = [
        lambda: fastload.load(trained, options=options),
        lambda: fastload.verify(trained, options=options),
        lambda: fastload.load("org/name", options=options),
    ]
    files = {path.name: path.read_bytes() for path in trained.iterdir()}
    with HubServer({"org/name": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for run in runs:
            with pytest.raises(SignatureError, match=rf"'training_args\.bin'.*{re.escape(index)}"):
                run()
    (trained / "training_args.bin").unlink()
    assert fastload.load(trained, options=options).report.evidence == "signature"


def test_an_index_that_is_left_out_is_looked_at_too(trained: Path) -> None:
    """So that nobody can make one."""
    write_folder(trained / "drafts", {"optimizer.pt": b"1"})
    options = leaving_out(trained, ["drafts"])
    assert fastload.load(trained, options=options).report.evidence == "signature"
    (trained / "drafts" / INDEX).write_text('{"weight_map": {"a": "optimizer.pt"}}')
    with pytest.raises(SignatureError, match=r"'drafts/optimizer\.pt'"):
        fastload.load(trained, options=options)


def test_an_index_that_is_lost_names_nothing(trained: Path) -> None:
    options = leaving_out(trained, ["training_args.bin"])
    fastload.verify(trained, record=True)
    (trained / INDEX).unlink()
    assert fastload.load(trained, options=options).report.evidence == "signature"


def test_an_index_that_cannot_be_looked_at_may_name_anything(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = leaving_out(trained, ["training_args.bin"])
    monkeypatch.setattr("fastload._fetch.evidence.left_unsigned.MAX_INDEX_BYTES", 10)
    with pytest.raises(SignatureError, match="training_args"):
        fastload.load(trained, options=options)


def test_what_is_brought_back_is_held_to_a_signature_by_other_digests_too(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else what the first tier has of it, as long and wrong, would lie in its place until the proof finds out."""
    shutil.copy(GOLDEN / "files-blake3-p256.sig", model / "model.sig")
    files = {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    right, wrong = files["model.safetensors"], bytearray(files["model.safetensors"])
    wrong[-1] ^= 1
    write_cache(tmp_path / "wrong", "org/name", COMMIT, files | {"model.safetensors": bytes(wrong)})
    write_cache(tmp_path / "right", "org/name", COMMIT, files)
    local = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "right"), tiers="local,shared")
    snapshot = Path(fastload.warm("org/name", options=local).path)
    (snapshot / "model.safetensors").resolve().unlink()
    options = replace(local, shared=f"{tmp_path / 'wrong'}:{tmp_path / 'right'}", signature_key=key().signature_key)
    assert fastload.load("org/name", options=options).report.evidence == "signature"
    assert (snapshot / "model.safetensors").read_bytes() == right
    assert f"brought again from shared:{tmp_path / 'right'}" in caplog.text
    assert "was damaged" not in caplog.text
