"""What ``warm`` leaves on a tier: the hub's layout, the manifest, links, refs; and that it does nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3

from fastload._verify.digest import BLOCK_BYTES
from stopwatch import Stopwatch
from stored_models import COMMIT, OTHER_COMMIT, blob_name, git_sha1, model_files, write_cache, write_folder, write_tree
from warming import MIB, Tiers, check_cache, content, large_shard, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REPO = "org/name"


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    return Tiers(tmp_path)


@pytest.fixture
def files() -> dict[str, bytes]:
    return {**model_files(), "model.safetensors.large": b"x", "sub/folder/tokenizer.json": b'{"deep": 1}'}


def taken(files: dict[str, bytes]) -> dict[str, bytes]:
    """What warm takes of them."""
    return {path: text for path, text in files.items() if not path.endswith(".large")}


def test_the_layout_is_the_hubs_and_ours_lies_in_its_own_folder(tiers: Tiers, files: dict[str, bytes]) -> None:
    write_cache(tiers.shared, REPO, COMMIT, files)
    snapshot = tiers.warm(REPO)
    repo = tiers.repo(REPO)
    assert snapshot == repo / "snapshots" / COMMIT
    assert content(snapshot) == taken(files)
    expected_blobs = {blob_name(path, text) for path, text in taken(files).items()}
    assert {path.name for path in (repo / "blobs").iterdir()} == expected_blobs
    for path, text in taken(files).items():
        depth = path.count("/") + 2
        assert os.readlink(snapshot / path) == "/".join([*[".."] * depth, "blobs", blob_name(path, text)])
    assert (repo / "refs/main").read_text() == COMMIT
    assert sorted(os.listdir(repo)) == [".fastload", "blobs", "refs", "snapshots"]
    assert sorted(os.listdir(repo / ".fastload")) == ["journals", "manifests", "staging", "stamps"]
    assert tiers.staged(REPO) == []
    assert sorted(name for name in os.listdir(tiers.local) if name != ".locks") == ["models--org--name"]
    assert check_cache(tiers.local, taken(files)) == 1


def test_the_manifest_says_of_each_file_what_it_is(tiers: Tiers, files: dict[str, bytes]) -> None:
    files["model-00001-of-00002.safetensors"] = large_shard(9 * MIB, 1)
    write_cache(tiers.shared, REPO, COMMIT, files)
    tiers.warm(REPO)
    manifest = tiers.manifest(REPO, COMMIT)
    assert (manifest.repo, manifest.commit, manifest.source) == (REPO, COMMIT, f"shared:{tiers.shared}")
    assert [file.path for file in manifest.files] == sorted(taken(files))
    for file in manifest.files:
        text = files[file.path]
        assert (file.size, file.sha256) == (len(text), hashlib.sha256(text).hexdigest())
        assert file.git_sha1 == (None if file.path.endswith(".safetensors") else git_sha1(text))
        blocks = [text[at : at + BLOCK_BYTES] for at in range(0, len(text), BLOCK_BYTES)]
        assert list(file.blocks) == [blake3(block).hexdigest() for block in blocks]


def test_the_stamp_says_what_files_looked_like_here_and_there(tiers: Tiers) -> None:
    folder = write_folder(tiers.shared / "plain", model_files())
    snapshot = tiers.warm("plain")
    stamp = json.loads((tiers.repo("plain") / f".fastload/stamps/{snapshot.name}.json").read_bytes())
    assert stamp["schema"] == 1 and stamp["wish"] == {"include": [], "exclude": []}
    for path, entry in stamp["files"].items():
        here, there = (snapshot / path).stat(), (folder / path).stat()
        assert entry == {
            "dev": here.st_dev,
            "ino": here.st_ino,
            "size": here.st_size,
            "mtime_ns": here.st_mtime_ns,
            "ctime_ns": here.st_ctime_ns,
            "source": [there.st_size, there.st_mtime_ns],
        }


def test_the_commit_of_a_plain_folder_follows_from_its_content(tiers: Tiers) -> None:
    files = model_files()
    write_folder(tiers.shared / "plain", files)
    snapshot = tiers.warm("plain")
    listed = sorted([path, len(text), hashlib.sha256(text).hexdigest()] for path, text in files.items())
    assert snapshot.name == blake3(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()[:40]
    assert {path.name for path in (tiers.repo("plain") / "blobs").iterdir()} == {digest for _, _, digest in listed}
    assert check_cache(tiers.local, files) == 1


def test_the_same_file_twice_and_an_empty_one(tiers: Tiers) -> None:
    files = model_files() | {"a.txt": b"same", "b.txt": b"same", "empty.txt": b""}
    write_folder(tiers.shared / "plain", files)
    assert content(tiers.warm("plain")) == files


def test_a_second_run_of_a_pinned_model_writes_nothing(tiers: Tiers, files: dict[str, bytes]) -> None:
    write_cache(tiers.shared, REPO, COMMIT, files)
    pinned = f"{REPO}@{COMMIT}"
    tiers.warm(pinned)
    before = tree(tiers.folder)
    whole_s = min(_time(lambda: tiers.warm(pinned)) for _ in range(3))
    assert tree(tiers.folder) == before
    beyond_s = whole_s - min(_time(lambda: tiers.run("warm", "--help")) for _ in range(3))
    assert beyond_s <= 0.3, f"{beyond_s:.3f} s beyond start-up"


def _time(work: Callable[[], object]) -> float:
    with Stopwatch() as watch:
        work()
    return watch.seconds


def test_a_second_run_of_a_plain_folder_writes_nothing(tiers: Tiers) -> None:
    write_folder(tiers.shared / "plain", model_files())
    tiers.warm("plain")
    before = tree(tiers.folder)
    tiers.warm("plain")
    assert tree(tiers.folder) == before


def test_the_second_run_does_not_need_the_mount(tiers: Tiers) -> None:
    write_folder(tiers.shared / "plain", model_files())
    snapshot = tiers.warm("plain")
    tiers.shared.rename(tiers.folder / "away")
    assert tiers.warm("plain") == snapshot


def test_a_changed_plain_folder_becomes_a_new_snapshot_and_the_old_one_stays(tiers: Tiers) -> None:
    old, new = model_files(0), model_files(1)
    folder = write_folder(tiers.shared / "plain", old)
    first = tiers.warm("plain")
    write_folder(folder, new)
    second = tiers.warm("plain")
    assert first != second
    assert (content(first), content(second)) == (old, new)
    assert (tiers.repo("plain") / "refs/main").read_text() == second.name
    assert tiers.run("resolve", "plain").stdout.strip() == str(second)
    assert tiers.run("resolve", f"plain@{first.name}").stdout.strip() == str(first)
    assert tiers.staged("plain") == []


def test_a_ref_that_moved_on_the_mount_is_followed_there_and_nowhere_else(tiers: Tiers) -> None:
    write_cache(tiers.shared, REPO, COMMIT, model_files(0))
    first = tiers.warm(REPO)
    write_cache(tiers.shared, REPO, OTHER_COMMIT, model_files(1))
    assert tiers.warm(f"{REPO}@{COMMIT}") == first
    second = tiers.warm(REPO)
    assert second.name == OTHER_COMMIT and content(second) == model_files(1)
    before = tree(tiers.folder)
    assert tiers.warm(REPO) == second
    assert tree(tiers.folder) == before
    write_cache(tiers.local, "org/mine", COMMIT, model_files(2))
    write_cache(tiers.shared, "org/mine", OTHER_COMMIT, model_files(3))
    assert tiers.warm("org/mine").name == COMMIT, "another tool brought it, from who knows where"


def test_touched_files_are_no_new_snapshot(tiers: Tiers) -> None:
    folder = write_folder(tiers.shared / "plain", model_files())
    first = tiers.warm("plain")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert tiers.warm("plain") == first
    before = tree(tiers.folder)
    assert tiers.warm("plain") == first
    assert tree(tiers.folder) == before, "the touched state was noted"
    assert check_cache(tiers.local, model_files()) == 1


def test_what_is_lost_from_a_snapshot_comes_back(tiers: Tiers, files: dict[str, bytes]) -> None:
    write_cache(tiers.shared, REPO, COMMIT, files)
    snapshot = tiers.warm(REPO)
    (snapshot / "config.json").resolve().unlink()
    with (snapshot / "model-00001-of-00002.safetensors").resolve().open("r+b") as blob:
        blob.truncate(10)
    assert tiers.warm(REPO) == snapshot
    assert content(snapshot) == taken(files)


def test_a_garbled_manifest_is_written_anew(tiers: Tiers, files: dict[str, bytes]) -> None:
    write_cache(tiers.shared, REPO, COMMIT, files)
    tiers.warm(REPO)
    path = tiers.repo(REPO) / f".fastload/manifests/{COMMIT}.json"
    path.write_bytes(b"{}")
    tiers.warm(REPO)
    assert tiers.manifest(REPO, COMMIT).commit == COMMIT


def test_what_was_excluded_comes_when_it_is_not_any_more(tiers: Tiers, files: dict[str, bytes]) -> None:
    write_cache(tiers.shared, REPO, COMMIT, files)
    snapshot = tiers.warm(REPO, "--exclude", "tokenizer*", "--exclude", "sub/*")
    assert content(snapshot).keys() == {path for path in taken(files) if not path.startswith(("tok", "sub"))}
    before = tree(tiers.folder)
    tiers.warm(REPO, "--exclude", "tokenizer*", "--exclude", "sub/*")
    assert tree(tiers.folder) == before
    tiers.warm(REPO)
    assert content(snapshot) == taken(files)
    assert [file.path for file in tiers.manifest(REPO, COMMIT).files] == sorted(taken(files))


def test_a_glob_that_nothing_matches_is_looked_for_once(tiers: Tiers, files: dict[str, bytes]) -> None:
    write_cache(tiers.shared, REPO, COMMIT, files)
    tiers.warm(REPO, "--include", "*.gguf")
    before = tree(tiers.folder)
    tiers.warm(REPO, "--include", "*.gguf")
    assert tree(tiers.folder) == before


def test_a_snapshot_with_only_a_config_is_completed_and_others_files_stay(
    tiers: Tiers, files: dict[str, bytes]
) -> None:
    write_cache(tiers.shared, REPO, COMMIT, files)
    there = write_cache(tiers.local, REPO, COMMIT, {"config.json": files["config.json"], "other.bin": b"theirs"})
    (there / "notes").mkdir()
    (there / "notes/real.txt").write_bytes(b"somebody's")
    (there / "linked").symlink_to("notes")
    snapshot = tiers.warm(REPO)
    theirs = {"other.bin": b"theirs", "notes/real.txt": b"somebody's"}
    assert content(snapshot) == taken(files) | theirs
    assert (snapshot / "linked").readlink().name == "notes"
    assert [file.path for file in tiers.manifest(REPO, COMMIT).files] == sorted(taken(files))
    assert tiers.staged(REPO) == []


def test_what_the_hubs_client_brought_gets_a_manifest_and_is_not_copied(tiers: Tiers, files: dict[str, bytes]) -> None:
    there = write_cache(tiers.local, REPO, COMMIT, files)
    write_tree(there, files)
    inodes = {path.name: path.stat().st_ino for path in (tiers.repo(REPO) / "blobs").iterdir()}
    assert tiers.warm(REPO) == there
    assert {path.name: path.stat().st_ino for path in (tiers.repo(REPO) / "blobs").iterdir()} == inodes
    assert [file.path for file in tiers.manifest(REPO, COMMIT).files] == sorted(taken(files))
    before = tree(tiers.folder)
    tiers.warm(REPO)
    assert tree(tiers.folder) == before
