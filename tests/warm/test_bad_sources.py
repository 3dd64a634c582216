"""Sources that lie: what contradicts its digest is never published."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from fastload import Options
from fastload._store.root import Root
from hub_faults import WrongBytes
from hub_server import HubServer, Repo
from stored_models import COMMIT, blob_name, model_files, write_cache
from warming import MIB, Tiers, as_json, content, large_shard

if TYPE_CHECKING:
    from collections.abc import Callable

REPO = "org/name"
LARGE = "model-00001-of-00002.safetensors"


@pytest.fixture
def files() -> dict[str, bytes]:
    return model_files() | {LARGE: large_shard(9 * MIB, 1)}


@pytest.fixture
def tiers(tmp_path: Path, files: dict[str, bytes]) -> Tiers:
    made = Tiers(tmp_path)
    write_cache(made.shared, REPO, COMMIT, files)
    return made


def damage(blob: Path, offset: int = 5 * MIB) -> None:
    with blob.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_a_blob_that_is_not_what_its_name_says(tiers: Tiers, files: dict[str, bytes]) -> None:
    name = blob_name(LARGE, files[LARGE])
    damage(tiers.shared / "models--org--name/blobs" / name)
    done = tiers.run("warm", REPO, "--json")
    assert done.returncode == 13
    error = as_json(done)["error"]
    assert error["path"].endswith(LARGE) and name in error["expected"]
    repo = tiers.repo(REPO)
    assert not os.listdir(repo / "snapshots") and not (repo / "refs").exists()
    assert tiers.run("resolve", REPO, FASTLOAD_TIERS="local").returncode == 12
    assert not any(name in staged for staged in tiers.staged(REPO))


def test_a_small_file_that_is_not_what_git_calls_it(tiers: Tiers, files: dict[str, bytes]) -> None:
    damage(tiers.shared / "models--org--name/blobs" / blob_name("config.json", files["config.json"]), 3)
    done = tiers.run("warm", REPO)
    assert done.returncode == 13 and "config.json" in done.stderr and "git_sha1" in done.stderr


def test_with_a_manifest_the_bad_block_is_named(tiers: Tiers, files: dict[str, bytes]) -> None:
    prewarmed = tiers.folder / "prewarmed"
    tiers.warm(REPO, "--to", prewarmed)
    damage(prewarmed / "models--org--name/blobs" / blob_name(LARGE, files[LARGE]))
    done = tiers.run("warm", REPO, "--json", FASTLOAD_SHARED=str(prewarmed))
    error = as_json(done)["error"]
    assert done.returncode == 13 and error["offset"] == 4 * MIB and "block 1" in error["found"]


def test_what_is_damaged_on_a_mount_is_named_with_its_path_its_blob_and_what_mends_it(
    tiers: Tiers, files: dict[str, bytes]
) -> None:
    repo = tiers.shared / "models--org--name"
    blob = repo / "blobs" / blob_name(LARGE, files[LARGE])
    damage(blob)
    done = tiers.run("warm", REPO, "--json")
    error = as_json(done)["error"]
    assert done.returncode == 13 and error["path"] == str(repo / "snapshots" / COMMIT / LARGE)
    assert f"fastload verify {repo / 'snapshots' / COMMIT} --repair" in error["hint"]
    assert str(blob.resolve()) in error["hint"]


def test_the_next_tier_serves_where_the_first_is_damaged(tiers: Tiers, files: dict[str, bytes]) -> None:
    damage(tiers.shared / "models--org--name/blobs" / blob_name(LARGE, files[LARGE]))
    second = tiers.folder / "second"
    write_cache(second, REPO, COMMIT, files)
    done = tiers.run("warm", REPO, FASTLOAD_SHARED=f"{tiers.shared}:{second}")
    assert done.returncode == 0 and f"Now from shared:{second}" in done.stderr
    assert content(tiers.repo(REPO) / "snapshots" / COMMIT) == files


@pytest.fixture
def garbled(tmp_path: Path) -> Tiers:
    """A mount whose manifest is no manifest any more, and one behind it."""
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, model_files())
    tiers.warm(REPO, "--to", tiers.folder / "garbled")
    (manifest,) = (tiers.folder / "garbled/models--org--name/.fastload/manifests").iterdir()
    manifest.write_bytes(b'{"sch')
    return Tiers(tiers.folder, more={"FASTLOAD_SHARED": f"{tiers.folder / 'garbled'}:{tiers.shared}"})


@pytest.mark.parametrize("verb", ["warm", "load"])
def test_the_next_tier_serves_where_a_manifest_is_garbled(garbled: Tiers, verb: str) -> None:
    done = garbled.run(verb, REPO, "--json")
    assert done.returncode == 0, done.stderr
    said = f"shared:{garbled.folder / 'garbled'} was passed over"
    assert said in done.stderr and f"Now from shared:{garbled.shared}" in done.stderr
    document = as_json(done)
    report = document["models"][0]["report"] if verb == "warm" else document
    assert report["tier"] == f"shared:{garbled.shared}"
    assert said in report["reader_reason"] and "invalid JSON" in report["reader_reason"]
    if verb == "warm":
        assert content(garbled.repo(REPO) / "snapshots" / COMMIT) == model_files()


@pytest.mark.parametrize("verb", ["warm", "load"])
def test_a_garbled_manifest_is_an_error_where_nobody_else_has_it(garbled: Tiers, verb: str) -> None:
    done = garbled.run(verb, REPO, FASTLOAD_SHARED=str(garbled.folder / "garbled"))
    assert done.returncode == 17 and "invalid JSON" in done.stderr


def test_a_garbled_manifest_of_the_local_tier_is_passed_over_too(tmp_path: Path) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, model_files())
    tiers.warm(REPO)
    (tiers.repo(REPO) / ".fastload/manifests" / f"{COMMIT}.json").write_bytes(b"{}")
    loaded = tiers.run("load", REPO, "--json")
    assert loaded.returncode == 0 and "local was passed over" in loaded.stderr, loaded.stderr
    tiers.warm(REPO)
    assert as_json(tiers.run("load", REPO, "--json"))["tier"] == "local"


def test_a_wrong_blob_in_the_target_is_replaced(tiers: Tiers, files: dict[str, bytes]) -> None:
    blobs = tiers.repo(REPO) / "blobs"
    blobs.mkdir(parents=True)
    wrong = blobs / blob_name(LARGE, files[LARGE])
    wrong.write_bytes(bytes(len(files[LARGE])))
    short = blobs / blob_name("config.json", files["config.json"])
    short.write_bytes(b"{")
    assert content(tiers.warm(REPO)) == files


def test_a_file_that_a_manifest_names_and_nobody_has(tiers: Tiers) -> None:
    prewarmed = tiers.folder / "prewarmed"
    snapshot = tiers.warm(REPO, "--to", prewarmed)
    (snapshot / "config.json").resolve().unlink()
    done = tiers.run("warm", REPO, FASTLOAD_SHARED=str(prewarmed))
    assert done.returncode == 13 and "config.json" in done.stderr


def test_a_download_that_was_interrupted_is_not_taken_for_complete(tiers: Tiers, files: dict[str, bytes]) -> None:
    other = tiers.folder / "other"
    write_cache(other, REPO, COMMIT, {path: text for path, text in files.items() if path != "tokenizer.json"})
    (other / "models--org--name/blobs" / f"{'a' * 40}.1234abcd.incomplete").write_bytes(b"half")
    done = tiers.run("warm", REPO, FASTLOAD_SHARED=str(other))
    assert done.returncode == 12 and "ncomplete" in done.stderr


@pytest.mark.parametrize(("times", "exit_code"), [(1, 0), (None, 13)])
def test_a_hub_that_sends_a_wrong_byte_once_and_always(
    tmp_path: Path, files: dict[str, bytes], times: int | None, exit_code: int
) -> None:
    with HubServer({REPO: Repo(files)}) as hub:
        hub.faults.add(WrongBytes(5 * MIB), path=f"/cdn/{blob_name(LARGE, files[LARGE])}*", method="GET", times=times)
        tiers = Tiers(tmp_path / "with-hub", tiers="local,hub", more={"HF_ENDPOINT": hub.url})
        done = tiers.run("warm", REPO)
        assert done.returncode == exit_code, done.stderr
        served = hub.served_bytes("/cdn/")
        assert served >= 2 * len(files[LARGE])
    snapshots = tiers.repo(REPO) / "snapshots"
    if exit_code:
        assert LARGE in done.stderr and not os.listdir(snapshots)
    else:
        assert [content(folder) for folder in snapshots.iterdir()] == [files]


def test_a_mount_that_hangs_holds_nobody_up(
    tiers: Tiers, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = str(tiers.folder / "hung")
    never = threading.Event()
    find, find_commit = Root.find, Root.find_commit

    def hang(real: Callable[..., Any]) -> Callable[..., Any]:
        def asked(root: Root, *words: Any, **named: Any) -> Any:
            if root.path == hung:
                never.wait()
            return real(root, *words, **named)

        return asked

    monkeypatch.setattr(Root, "find", hang(find))
    monkeypatch.setattr(Root, "find_commit", hang(find_commit))
    options = Options(local=str(tiers.local), shared=(hung, str(tiers.shared)), tiers=("local", "shared"))
    begin_s = time.monotonic()
    snapshot = fastload.warm(f"{REPO}@{COMMIT}", options=options)
    assert time.monotonic() - begin_s < 30, "4 s to find it, 4 s to ask for copies, by a machine that may be busy"
    assert content(Path(snapshot.path)) == files
    never.set()
