"""What ``warm`` wrote, the hub's own client and its command use, and the reverse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from fastload._store.wanted import WARM_IGNORES as NOT_TAKEN
from fastload._store.wanted import WARM_PATTERNS as TAKEN
from hub_server import HubServer, Repo
from stored_models import model_files
from warming import MIB, Tiers, content, environment, large_shard, tree

USE = "load" if find_spec("torch") is not None else "inspect"
"""`make oldest` runs these tests too, with the hub's oldest client and without torch."""
HF = Path(sys.executable).with_name("hf")
REPO = "org/name"
FILES = {**model_files(), "model-00001-of-00002.safetensors": large_shard(9 * MIB, 0), "README.md": b"# A model\n"}
LEFT_OUT = {"pytorch_model.bin": b"not taken", "picture.png": b"neither"}
WARM_PATTERNS = ["*.safetensors", "*.json", "*.md"]


@pytest.fixture
def hub(tmp_path: Path) -> HubServer:
    return HubServer({REPO: Repo({**FILES, **LEFT_OUT})})


def tiers_of(folder: Path, hub: HubServer) -> Tiers:
    return Tiers(folder, tiers="local,hub", more={"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home")})


def hf(tiers: Tiers, *words: str) -> subprocess.CompletedProcess[str]:
    where = environment(
        HF_HUB_CACHE=str(tiers.local), HF_HOME=str(tiers.folder / "home"), HF_ENDPOINT=tiers.more["HF_ENDPOINT"]
    )
    return subprocess.run([HF, "cache", *words], env=where, capture_output=True, text=True, check=False, timeout=60)


def test_the_hubs_client_finds_what_was_warmed(tmp_path: Path, hub: HubServer) -> None:
    with hub:
        tiers = tiers_of(tmp_path, hub)
        snapshot = tiers.warm(REPO)
        assert content(snapshot) == FILES
        asked = len(hub.requests)
        found = snapshot_download(REPO, cache_dir=tiers.local, local_files_only=True)
        assert Path(found) == snapshot
        info = scan_cache_dir(tiers.local)
        assert info.warnings == []
        assert {(repo.repo_id, len(repo.revisions), repo.size_on_disk) for repo in info.repos} == {
            (REPO, 1, sum(map(len, FILES.values())))
        }
        before = tree(tiers.local)
        found = snapshot_download(REPO, cache_dir=tiers.local, endpoint=hub.url, allow_patterns=WARM_PATTERNS)
        assert Path(found) == snapshot and content(snapshot) == FILES
        brought = [request for request in hub.requests[asked:] if request.method == "GET"]
        assert not [request for request in brought if "/resolve/" in request.path]
        kept = {path: state for path, state in tree(tiers.local).items() if path in before and Path(path).is_file()}
        assert kept.items() <= before.items()


def test_the_hubs_command_lists_verifies_prunes_and_removes(tmp_path: Path, hub: HubServer) -> None:
    with hub:
        tiers = tiers_of(tmp_path, hub)
        snapshot = tiers.warm(REPO)
        listed = hf(tiers, "ls")
        assert listed.returncode == 0 and REPO in listed.stdout
        verified = hf(tiers, "verify", REPO)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        pruned = hf(tiers, "prune", "--yes")
        assert pruned.returncode == 0, pruned.stderr
        assert content(snapshot) == FILES
        removed = hf(tiers, "rm", f"model/{REPO}", "--yes")
        assert removed.returncode == 0, removed.stderr
        assert not tiers.repo(REPO).exists()
        assert tiers.warm(REPO) == snapshot


def test_a_damaged_blob_is_found_by_the_hubs_command(tmp_path: Path, hub: HubServer) -> None:
    with hub:
        tiers = tiers_of(tmp_path, hub)
        blob = (tiers.warm(REPO) / "config.json").resolve()
        blob.write_bytes(b"?" + blob.read_bytes()[1:])
        assert hf(tiers, "verify", REPO).returncode == 1


def test_what_the_hubs_client_downloaded_is_complete_and_not_brought_again(tmp_path: Path, hub: HubServer) -> None:
    with hub:
        tiers = tiers_of(tmp_path, hub)
        there = Path(snapshot_download(REPO, cache_dir=tiers.local, endpoint=hub.url))
        assert tiers.run("resolve", REPO).stdout.strip() == str(there)
        blobs = tree(tiers.repo(REPO) / "blobs")
        served = hub.served_bytes("/resolve/") + hub.served_bytes("/cdn/")
        assert tiers.warm(REPO) == there
        assert hub.served_bytes("/resolve/") + hub.served_bytes("/cdn/") == served
        assert tree(tiers.repo(REPO) / "blobs") == blobs
        assert content(there) == {**FILES, **LEFT_OUT}
        commit = hub.repos[REPO].commit
        assert [file.path for file in tiers.manifest(REPO, commit).files] == sorted(FILES)
        pinned = f"{REPO}@{commit}"
        asked, before = len(hub.requests), tree(tiers.folder)
        assert tiers.warm(pinned) == there
        assert (len(hub.requests), tree(tiers.folder)) == (asked, before)
        assert tiers.run(USE, REPO).returncode == 0
        (tiers.repo(REPO) / f".fastload/manifests/{commit}.json").unlink()
    assert tiers.warm(pinned) == there, "complete by its listing, so nobody is asked"


def test_an_interrupted_download_is_completed(tmp_path: Path, hub: HubServer) -> None:
    with hub:
        tiers = tiers_of(tmp_path, hub)
        snapshot_download(REPO, cache_dir=tiers.local, endpoint=hub.url, allow_patterns=["config.json", "*index.json"])
        blobs = tiers.repo(REPO) / "blobs"
        (blobs / f"{'a' * 64}.0123abcd.incomplete").write_bytes(b"half of it")
        assert tiers.run("resolve", REPO).returncode == 12
        assert content(tiers.warm(REPO)) == FILES


def test_offline_the_client_finds_all_that_warms_patterns_name(tmp_path: Path, hub: HubServer) -> None:
    """Where it has cached a listing, it says what is missing; by the same patterns, nothing is."""
    taken, left_out = list(TAKEN), list(NOT_TAKEN)
    with hub:
        tiers = tiers_of(tmp_path, hub)
        snapshot = tiers.warm(REPO)
        snapshot_download(REPO, cache_dir=tiers.local, endpoint=hub.url, allow_patterns=taken, ignore_patterns=left_out)
    found = snapshot_download(
        REPO, cache_dir=tiers.local, local_files_only=True, allow_patterns=taken, ignore_patterns=left_out
    )
    assert Path(found) == snapshot
    assert content(snapshot) == FILES


@pytest.mark.parametrize("suffix", ["gguf", "bin"])
def test_an_interrupted_download_of_other_weights_is_completed(tmp_path: Path, suffix: str) -> None:
    files = {"config.json": b"{}", **{f"m-0000{n}-of-00002.{suffix}": b"GGUF%d" % n for n in (1, 2)}}
    with HubServer({REPO: Repo(files)}) as hub:
        tiers = tiers_of(tmp_path, hub)
        snapshot_download(REPO, cache_dir=tiers.local, endpoint=hub.url, allow_patterns=["config.json", "*00001-of*"])
        assert tiers.run("resolve", REPO).returncode == 12
        assert content(tiers.warm(REPO, "--include", f"*.{suffix}")) == files
        assert tiers.run("resolve", REPO).returncode == 0


def test_beside_weights_that_load_an_interrupted_set_is_completed_or_refused(tmp_path: Path) -> None:
    """Without it the model loads, so that it is complete by default."""
    files = {**model_files(), **{f"pytorch_model-0000{n}-of-00002.bin": b"%d" % n for n in (1, 2)}}
    with HubServer({REPO: Repo(files)}) as hub:
        tiers = tiers_of(tmp_path, hub)
        there = snapshot_download(
            REPO, cache_dir=tiers.local, endpoint=hub.url, ignore_patterns=["*00002-of-00002.bin"]
        )
        assert tiers.run("resolve", REPO).returncode == 0
        done = tiers.run("warm", REPO, "--include", "*.bin", FASTLOAD_TIERS="local")
        assert done.returncode == 12
        assert "no 'pytorch_model-00002-of-00002.bin'" in done.stderr and there in done.stderr
        assert content(tiers.warm(REPO, "--include", "*.bin")) == files


def test_a_cache_as_a_server_fills_it_loads_and_warm_brings_the_rest(tmp_path: Path, hub: HubServer) -> None:
    """VLLM fetches what it loads; the hub's client notes beside it what else there is."""
    with hub:
        tiers = tiers_of(tmp_path, hub)
        for patterns in (["*.safetensors"], ["*.json"]):
            there = snapshot_download(REPO, cache_dir=tiers.local, endpoint=hub.url, allow_patterns=patterns)
        assert not (Path(there) / "README.md").exists()
        for verb in ("resolve", USE, "warm"):
            assert tiers.run(verb, REPO, FASTLOAD_TIERS="local").returncode == 0, verb
        assert content(tiers.warm(REPO)) == FILES


def test_what_is_there_serves_where_the_hub_is_away(tmp_path: Path, hub: HubServer) -> None:
    with hub:
        tiers = tiers_of(tmp_path, hub)
        snapshot = tiers.warm(REPO)
    done = tiers.run("warm", REPO, "--deadline", "3s")  # of which the hub gets a part, else ten seconds
    assert (done.returncode, done.stdout.strip()) == (0, str(snapshot))
    assert "taking what local has" in done.stderr


def test_a_new_commit_is_a_new_snapshot_and_shares_what_has_not_changed(tmp_path: Path, hub: HubServer) -> None:
    with hub:
        tiers = tiers_of(tmp_path, hub)
        first = tiers.warm(REPO)
        served = hub.served_bytes("/cdn/")
        newer = {**FILES, "config.json": b'{"seed": 2}'}
        hub.repos[REPO].push(newer)
        second = tiers.warm(REPO)
        assert hub.served_bytes("/cdn/") == served
    assert (content(first), content(second)) == (FILES, newer)
    shard = "model-00001-of-00002.safetensors"
    assert (first / shard).resolve() == (second / shard).resolve()
    assert len(os.listdir(tiers.repo(REPO) / "blobs")) == len(FILES) + 1


def test_a_local_dir_of_the_hubs_client_is_a_plain_folder(tmp_path: Path, hub: HubServer) -> None:
    with hub:
        snapshot_download(REPO, local_dir=tmp_path / "shared" / "name", endpoint=hub.url)
        commit = hub.repos[REPO].commit
    tiers = Tiers(tmp_path)
    snapshot = tiers.warm(f"{REPO}@{commit}")
    assert snapshot.name == commit and content(snapshot) == FILES
    shutil.rmtree(tmp_path / "shared")
    assert tiers.warm(f"{REPO}@{commit}") == snapshot
