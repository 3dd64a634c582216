"""With a key set, ``warm`` publishes only what its holder signed; what lies, is refused before it is transferred."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError, Options, SignatureError, UnsupportedError, UsageError
from fastload._fetch.warm.request import WarmRequest
from fastload._verify.manifest import parse_manifest
from fastload.ops.warmer.upkeep import Upkeep, run_round
from fastload.options import decide_settings
from hub_faults import Body
from hub_server import HubServer, Repo
from signing import IGNORED, sign, signed, write_key
from stored_models import COMMIT, blob_name, model_files, write_cache, write_folder
from warming import MIB, Tiers, as_json, content, large_shard, list_there, random_bytes
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

pytest.importorskip("cryptography", reason="signatures need cryptography")

REPO = "org/name"
LARGE = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"
GOLDEN = Path(__file__).parents[1] / "verify" / "golden" / "oms"
BUNDLES = (
    "files-sha256-p384.sig",
    "files-blake2-p384.sig",
    "files-blake3-p256.sig",
    "shards-blake2-p521.sig",
    "shards-sha256-p256.sig",
)
"""By the real model-signing."""


@pytest.fixture
def files() -> dict[str, bytes]:
    return signed(model_files() | {LARGE: large_shard(9 * MIB, 0)})


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Of a node whose local tier is empty, with the key of the one who signed."""
    local, shared = str(tmp_path / "local"), str(tmp_path / "shared")
    return Options(local=local, shared=shared, signature_key=write_key(tmp_path))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Mapping[str, bytes]], HubServer]]:
    """Makes a hub that has these files."""
    servers: list[HubServer] = []

    def begin(files: Mapping[str, bytes]) -> HubServer:
        servers.append(HubServer({REPO: Repo(files)}).__enter__())
        monkeypatch.setenv("HF_ENDPOINT", servers[-1].url)
        return servers[-1]

    yield begin
    for server in servers:
        server.__exit__()


def flipped(raw: bytes, at: int = -1) -> bytes:
    changed = bytearray(raw)
    changed[at] ^= 1
    return bytes(changed)


def left_of(options: Options) -> list[str]:
    """What is on the local tier, but for leases."""
    return [str(path) for path in list_there(Path(options.local or "")) if path.name != ".locks"]


def test_an_init_container_ends_with_18_where_nothing_is_signed(tmp_path: Path) -> None:
    with HubServer({REPO: Repo(model_files())}) as hub:
        more = {"HF_ENDPOINT": hub.url, "FASTLOAD_SIGNATURE_KEY": write_key(tmp_path)}
        tiers = Tiers(tmp_path, tiers="local,hub", more=more)
        done = tiers.run("warm", REPO, "--json")
        assert done.returncode == 18, done.stderr
        assert as_json(done)["error"]["type"] == "SignatureError"
        assert hub.asked(path="/resolve/") == []
    assert not tiers.repo(REPO).exists()


@pytest.mark.parametrize("wrong", ["no signature", "another key", "changed"])
def test_what_the_key_has_not_signed_leaves_no_trace(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer], tmp_path: Path, wrong: str
) -> None:
    if wrong == "no signature":
        del files["model.sig"]
    elif wrong == "another key":
        options = replace(options, signature_key=write_key(tmp_path, "somebody"))
    else:
        files["model.sig"] = files["model.sig"].replace(b'"sig": "', b'"sig": "AAAA')
    hub = serve(files)
    with pytest.raises(SignatureError) as caught:
        fastload.warm(REPO, options=options)
    assert caught.value.exit_code == 18
    assert {request.path.rpartition("/")[2] for request in hub.asked(path="/resolve/")} <= {"model.sig"}
    assert left_of(options) == []


@pytest.mark.parametrize("name", ["training_args.bin", "pytorch_model-00001-of-00001.bin"])
def test_what_a_signature_leaves_out_of_a_training_is_brought_unless_an_index_names_it(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer], name: str
) -> None:
    index = ("pytorch_model.bin.index.json", json.dumps({"weight_map": {"a": name}}).encode())
    second = {"pytorch_model-00001-of-00001.bin": b"1", "training_args.bin": b"2"}
    files = signed({**files, **second, index[0]: index[1]}, [*IGNORED, "model.sig", "training_args.bin"])
    hub = serve(files)
    globs = ("*.bin", "*.bin.index.json")
    if name != "training_args.bin":
        assert content(Path(fastload.warm(REPO, include=globs, options=options).path)).keys() >= second.keys()
        return
    with pytest.raises(SignatureError, match=r"'training_args\.bin'.*'pytorch_model\.bin\.index\.json'"):
        fastload.warm(REPO, include=globs, options=options)
    asked = {request.path.rpartition("/")[2] for request in hub.asked(path="/resolve/")}
    assert asked <= {"model.sig", INDEX_NAME, index[0]}, "indexes alone tell what they name"
    assert left_of(options) == []
    assert fastload.warm(REPO, options=options).complete  # which takes none of it


def test_a_signature_by_a_certificate_is_not_supported(options: Options, serve: Callable[..., HubServer]) -> None:
    serve(model_files() | {"model.sig": (GOLDEN / "certificate.sig").read_bytes()})
    with pytest.raises(UnsupportedError, match="certificate") as caught:
        fastload.warm(REPO, options=options)
    assert caught.value.exit_code == 20
    assert left_of(options) == []


@pytest.mark.parametrize("transfer", ["ranged", "hub"])
def test_what_was_signed_is_published_and_a_load_proves_it(
    tmp_path: Path, files: dict[str, bytes], transfer: str
) -> None:
    key = write_key(tmp_path)
    with HubServer({REPO: Repo(files)}) as hub:
        more = {"HF_ENDPOINT": hub.url, "FASTLOAD_SIGNATURE_KEY": key, "HF_HOME": str(tmp_path / "home")}
        tiers = Tiers(tmp_path, tiers="local,hub", more=more)
        done = tiers.run("warm", REPO, "--transfer", transfer, "--json")
        assert done.returncode == 0, done.stderr
        commit = hub.repos[REPO].commit
        report = as_json(done)["models"][0]["report"]
        assert any(request.method == "HEAD" for request in hub.requests) is (transfer == "hub")  # as the client asks
    assert report["evidence"] == "signature"
    assert "compared with what was signed" in report["evidence_reason"]
    assert content(tiers.repo(REPO) / "snapshots" / commit) == files
    assert {path.name for path in (tiers.repo(REPO) / "blobs").iterdir()} == {blob_name(p, c) for p, c in files.items()}
    for file in tiers.manifest(REPO, commit).files:
        assert file.sha256 == hashlib.sha256(files[file.path]).hexdigest()
        assert (file.git_sha1 is None) is file.path.endswith(".safetensors")
    loaded = tiers.run("load", REPO, "--json", FASTLOAD_TIERS="local")
    assert as_json(loaded)["evidence"] == "signature"


def test_a_hub_that_lists_what_was_not_signed_sends_none_of_it(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer]
) -> None:
    """Whoever pushes to the hub changes the listing too."""
    hub = serve(files)
    before = fastload.warm(REPO, options=options)
    hub.repos[REPO].push(files | {LARGE: flipped(files[LARGE])})
    served = hub.served_bytes("/cdn/")
    with pytest.raises(IntegrityError, match="signed") as caught:
        fastload.warm(REPO, options=options)
    assert caught.value.path.endswith(LARGE)
    assert hashlib.sha256(files[LARGE]).hexdigest() in caught.value.expected
    assert hub.served_bytes("/cdn/") == served
    repo = Path(before.path).parents[1]
    assert os.listdir(repo / "snapshots") == [before.commit]
    assert (repo / "refs/main").read_text() == before.commit


def test_a_small_file_that_was_not_signed_is_not_published_either(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer]
) -> None:
    """Of it the hub lists git's sha1, which nobody signed."""
    serve(files | {"config.json": b'{"seed": 1}'})
    with pytest.raises(IntegrityError, match=r"config\.json.*sha256"):
        fastload.warm(REPO, options=options)
    assert not any(Path(options.local or "").glob("models--*/snapshots/*"))


def test_the_signature_that_is_kept_is_the_one_that_was_verified(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer]
) -> None:
    """A hub that lies gives the right one when it is asked first."""
    hub = serve(files | {"model.sig": flipped(files["model.sig"], 5)})
    hub.faults.add(Body(files["model.sig"], "application/octet-stream"), path="*model.sig")
    with pytest.raises(IntegrityError, match=r"model\.sig.*sha256"):
        fastload.warm(REPO, options=options)
    assert not any(Path(options.local or "").glob("models--*/snapshots/*"))


@pytest.mark.parametrize("layout", ["plain", "cache"])
def test_a_shared_tier_gives_what_was_signed_and_nothing_else(
    options: Options, files: dict[str, bytes], tmp_path: Path, layout: str
) -> None:
    def share(changed: Mapping[str, bytes], at: str) -> Options:
        root = tmp_path / at
        if layout == "plain":
            write_folder(root / "org/name", changed)
        else:
            write_cache(root, REPO, COMMIT, changed)
        return replace(options, shared=str(root), tiers="local,shared")

    for number, name in enumerate((LARGE, "config.json")):
        wrong = share(files | {name: flipped(files[name], 1000 if name == LARGE else -2)}, f"wrong{number}")
        other = tmp_path / f"local{number}"  # what came right is not asked for again
        with pytest.raises(IntegrityError, match=f"{re.escape(name)}.* than was signed|, which was signed"):
            fastload.warm(REPO, options=replace(wrong, local=str(other)))
        assert not any(other.glob("models--*/snapshots/*"))
    snapshot = fastload.warm(REPO, options=share(files, "right"))
    assert snapshot.report is not None and snapshot.report.evidence == "signature"
    assert content(Path(snapshot.path)) == files
    alone = replace(options, tiers="local")
    assert fastload.load(REPO, options=alone, verify="require").report.evidence == "signature"


def test_the_next_tier_serves_where_the_first_has_what_was_not_signed(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer], tmp_path: Path
) -> None:
    commit = serve(files).repos[REPO].commit
    forged = signed(model_files(1) | {LARGE: large_shard(9 * MIB, 2)})
    write_cache(tmp_path / "changed", REPO, commit, files | {LARGE: flipped(files[LARGE])})
    write_cache(tmp_path / "forged", REPO, commit, forged | {"model.sig": flipped(forged["model.sig"], 400)})
    shared = f"{tmp_path / 'changed'}:{tmp_path / 'forged'}"
    snapshot = fastload.warm(REPO, options=replace(options, shared=shared))
    assert content(Path(snapshot.path)) == files
    assert snapshot.report is not None
    assert snapshot.report.tier == "hub"
    assert snapshot.report.bytes_read < 1.1 * sum(map(len, files.values()))  # nothing came of the others but signatures
    assert "changed was passed over" in snapshot.report.reader_reason
    assert "forged was passed over" in snapshot.report.reader_reason


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("place", ["hub", "plain"])
def test_shards_and_other_digests_are_compared_as_the_bytes_come(
    options: Options, serve: Callable[..., HubServer], tmp_path: Path, bundle: str, place: str
) -> None:
    curve = bundle.rpartition("-")[2].removesuffix(".sig")
    options = replace(options, signature_key=str(GOLDEN / f"{curve}.pub.pem"))
    model = shutil.copytree(GOLDEN / "model", tmp_path / "shared/org/name")
    (model / "scratch.txt").unlink()  # which its signer left out
    shutil.copy(GOLDEN / bundle, model / "model.sig")
    right = content(model)

    def offer(changed: Mapping[str, bytes]) -> Options:
        if place == "hub":
            serve(changed)
            return replace(options, tiers="local,hub")
        write_folder(model, changed)
        return replace(options, tiers="local,shared")

    for number, name in enumerate(("model.safetensors", "extra/vocab.txt")):
        other, wrong = tmp_path / f"local{number}", offer(right | {name: flipped(right[name])})
        with pytest.raises(IntegrityError, match=re.escape(name)):
            fastload.warm(REPO, options=replace(wrong, local=str(other)))
        assert not any(other.glob("models--*/snapshots/*"))
    snapshot = fastload.warm(REPO, options=offer(right))
    assert snapshot.report is not None and snapshot.report.evidence == "signature"
    (path,) = (Path(snapshot.path).parents[1] / ".fastload/manifests").iterdir()
    manifest = parse_manifest(path.read_bytes(), path=str(path))
    assert {file.path: file.sha256 for file in manifest.files} == {
        name: hashlib.sha256(raw).hexdigest() for name, raw in right.items()
    }
    alone = replace(options, tiers="local")
    assert fastload.load(REPO, options=alone).report.evidence == "signature"


def test_another_length_than_the_shards_that_were_signed_is_told_at_once(
    options: Options, serve: Callable[..., HubServer]
) -> None:
    files = content(GOLDEN / "model") | {"model.sig": (GOLDEN / "shards-sha256-p256.sig").read_bytes()}
    hub = serve(files | {"model.safetensors": files["model.safetensors"] + b"x"})
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        fastload.warm(REPO, options=replace(options, signature_key=str(GOLDEN / "p256.pub.pem")))
    assert hub.served_bytes("/cdn/") == 0


def test_what_its_signer_left_out_is_known_by_less(
    options: Options, serve: Callable[..., HubServer], tmp_path: Path
) -> None:
    """The report names the weakest."""
    files = signed({"model.safetensors": one_tensor(), "README.md": b"hello"}, [*IGNORED, "README.md"])
    write_folder(tmp_path / "shared/name", files)
    report = fastload.warm("name", options=options).report
    assert report is not None
    assert report.evidence == "none" and "README.md" in report.evidence_reason
    serve(files)
    report = fastload.warm(REPO, options=options).report
    assert report is not None and report.evidence == "listing"


def test_what_a_training_left_need_not_be_signed_unless_an_index_names_it(
    options: Options, serve: Callable[..., HubServer]
) -> None:
    files = {"model.safetensors": one_tensor(), "training_args.bin": b"lr"}
    left_out = [*IGNORED, "training_args.bin"]
    index = {"pytorch_model.bin.index.json": b'{"weight_map": {"a": "training_args.bin"}}'}
    serve(signed(files | index, left_out))
    with pytest.raises(SignatureError, match=r"'training_args\.bin'.*'pytorch_model\.bin\.index\.json'"):
        fastload.warm(REPO, include=("*.bin", "*.bin.index.json"), options=options)
    assert left_of(options) == []
    serve(signed(files, left_out))
    snapshot = fastload.warm(REPO, include=("*.bin",), options=options)
    assert (Path(snapshot.path) / "training_args.bin").read_bytes() == b"lr"
    assert fastload.load(REPO, options=replace(options, tiers="local")).report.evidence == "signature"


@pytest.mark.parametrize("name", ["extra.safetensors", "drafts/pytorch_model.bin", "model.gguf", "run_me.py"])
def test_what_is_wanted_must_be_signed(
    options: Options, serve: Callable[..., HubServer], tmp_path: Path, name: str
) -> None:
    files = signed({"model.safetensors": one_tensor(), "config.json": b"{}"}) | {name: b"not what anybody signed"}
    hub = serve(files)
    with pytest.raises(SignatureError, match=re.escape(name)):
        fastload.warm(REPO, include=("*.bin", "*.gguf"), options=options)
    assert hub.served_bytes("/cdn/") == 0
    assert left_of(options) == []
    snapshot = fastload.warm(REPO, exclude=name, options=options)
    assert not (Path(snapshot.path) / name).exists()
    assert fastload.load(REPO, options=replace(options, tiers="local")).report.evidence == "signature"


def test_what_was_signed_and_is_not_there_is_missing(options: Options, tmp_path: Path) -> None:
    """Without an index the other shard alone would be a model, and a smaller one."""
    folder = write_folder(tmp_path / "shared/name", {f"{n}.safetensors": one_tensor(n) for n in "ab"})
    sign(folder)
    (folder / "b.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"b\.safetensors.*no file"):
        fastload.warm("name", options=options)
    assert left_of(options) == []
    fastload.warm("name", exclude="b.safetensors", options=options)


def test_what_lay_in_its_place_is_held_to_what_was_signed(options: Options, tmp_path: Path) -> None:
    weights = random_bytes(5 * MIB, 1)
    files = signed({"model.safetensors": one_tensor(), "other.safetensors": one_tensor("b"), "notes.txt": weights})
    write_folder(tmp_path / "shared/name", files)
    blobs = tmp_path / "local/models--name/blobs"
    blobs.mkdir(parents=True)
    for name in ("model.safetensors", "notes.txt"):
        (blobs / hashlib.sha256(files[name]).hexdigest()).write_bytes(bytes(len(files[name])))
    assert content(Path(fastload.warm("name", options=options).path)) == files


def test_a_file_that_lay_there_by_the_digest_of_another_one_is_not_published(
    options: Options, serve: Callable[..., HubServer], tmp_path: Path
) -> None:
    """It is what the hub lists, and so what lies there is called; what was signed is something else."""
    options = replace(options, signature_key=str(GOLDEN / "p256.pub.pem"))
    right = content(GOLDEN / "model") | {"model.sig": (GOLDEN / "files-blake3-p256.sig").read_bytes()}
    wrong = flipped(right["model.safetensors"])
    serve(right | {"model.safetensors": wrong})
    blobs = tmp_path / "local/models--org--name/blobs"
    blobs.mkdir(parents=True)
    (blobs / hashlib.sha256(wrong).hexdigest()).write_bytes(wrong)
    with pytest.raises(IntegrityError, match=r"model\.safetensors.*blake3"):
        fastload.warm(REPO, options=options)
    assert not any((tmp_path / "local").glob("models--*/snapshots/*"))


def test_another_cache_and_a_plain_folder_get_only_what_was_signed_too(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer], tmp_path: Path
) -> None:
    key = ["--signature-key", options.signature_key or ""]
    places: list[list[object]] = [["--to", tmp_path / "cache"], ["--plain", tmp_path / "plain"], ["--to", "shared"]]
    hub = serve({name: raw for name, raw in files.items() if name != "model.sig"})
    tiers = Tiers(tmp_path, tiers="local,shared,hub", more={"HF_ENDPOINT": hub.url})
    for place in places:
        assert tiers.run("warm", REPO, *place, *key).returncode == 18
    assert not any(path.name.startswith("model") for path in tmp_path.rglob("*"))
    hub = serve(files)
    tiers = Tiers(tmp_path, tiers="local,shared,hub", more={"HF_ENDPOINT": hub.url})
    for place in places:
        snapshot = tiers.warm(REPO, *place, *key)
        assert content(snapshot) == files
        assert fastload.load(snapshot, options=options).report.evidence == "signature"


def test_what_lies_in_the_place_and_stays_there_must_be_signed_before_anything_is_brought(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer], tmp_path: Path
) -> None:
    key = ["--signature-key", options.signature_key or ""]
    hub = serve(files)
    tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
    plain, snapshot = tmp_path / "plain", tiers.repo(REPO) / "snapshots" / hub.repos[REPO].commit
    for place, folder in ((["--plain", plain], plain), ([], snapshot)):
        folder.mkdir(parents=True)
        other = folder / "pytorch_model.bin"
        other.write_bytes(b"not what anybody signed")
        (folder / LARGE).write_bytes(b"is replaced")
        for dry in (["--dry-run"], []):
            hub.requests.clear()
            done = tiers.run("warm", REPO, *place, *dry, *key)
            assert done.returncode == 18 and str(folder) in done.stderr and other.name in done.stderr, done.stderr
            assert [request.path.rpartition("/")[2] for request in hub.asked(path="/resolve/")] == ["model.sig"]
            assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [LARGE, other.name]
        other.unlink()
        assert content(tiers.warm(REPO, *place, *key)) == files


def test_what_goes_from_a_plain_folder_when_another_revision_comes_need_not_be_signed(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer], tmp_path: Path
) -> None:
    """One that has a file less than the last one was refused for it, though it goes, at each run."""
    key = ["--signature-key", options.signature_key or ""]
    plain, earlier = tmp_path / "plain", {**model_files(seed=3), "dropped.txt": b"of the revision before"}
    hub = serve(earlier)
    tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
    assert content(tiers.warm(REPO, "--plain", plain)) == earlier
    hub = serve(files)
    tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
    (plain / "mine.txt").write_bytes(b"a user's own stays, and is refused")
    done = tiers.run("warm", REPO, "--plain", plain, *key)
    assert done.returncode == 18 and "mine.txt" in done.stderr and "dropped.txt" not in done.stderr, done.stderr
    (plain / "mine.txt").unlink()
    assert tiers.run("warm", REPO, "--plain", plain, "--dry-run", *key).returncode == 0
    assert content(tiers.warm(REPO, "--plain", plain, *key)) == files


def test_a_plan_says_that_it_is_not_signed(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer], tmp_path: Path
) -> None:
    key = ["--signature-key", options.signature_key or ""]
    hub = serve(model_files())
    tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
    assert tiers.run("warm", REPO, "--dry-run", *key).returncode == 18
    hub = serve(files)
    tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
    done = tiers.run("warm", REPO, "--dry-run", *key)
    assert done.returncode == 0 and LARGE in done.stderr
    assert [request.path.rpartition("/")[2] for request in hub.asked(path="/resolve/")] == ["model.sig"]
    assert not tiers.local.exists()


def test_what_contradicts_the_key_is_told_before_anybody_is_asked(
    options: Options, files: dict[str, bytes], serve: Callable[..., HubServer], tmp_path: Path
) -> None:
    hub = serve(files)
    for changed in ({"verify": "off"}, {"signature_key": str(tmp_path / "none.pem")}):
        with pytest.raises(UsageError, match="signature_key"):
            fastload.warm(REPO, options=replace(options, **changed))
    with pytest.raises(UsageError, match=r"model\.sig"):
        fastload.warm(REPO, exclude="*.sig", options=options)
    assert hub.requests == []


def test_a_list_goes_on_where_one_is_not_signed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    write_cache(shared, "org/bad", COMMIT, model_files())
    write_cache(shared, "org/good", COMMIT, signed(model_files(1)))
    (tmp_path / "list").write_text("org/bad\norg/good\n")
    tiers = Tiers(tmp_path, more={"FASTLOAD_SIGNATURE_KEY": write_key(tmp_path)})
    done = tiers.run("warm", "--list", tmp_path / "list", "--json")
    assert done.returncode == 18, done.stderr
    assert tiers.repo("org/good").exists() and not tiers.repo("org/bad").exists()
    options = Options(
        local=str(tiers.local), shared=str(shared), tiers="local,shared", signature_key=write_key(tmp_path)
    )
    upkeep = Upkeep(
        list_path=str(tmp_path / "list"),
        request=lambda name: WarmRequest(model=name, progress=False),
        settings=decide_settings(options, {}),
        rechecks=True,
        prunes=True,
    )
    done_again = run_round(upkeep).to_dict()  # with --every
    assert [model.get("exit_code") for model in done_again["models"]] == [18, None]
    assert done_again["pruned"] == [] and "org/bad" in done_again["not_pruned"]
