"""A folder of a repo that is a mount of its own, be it of the same file system: nothing made beside it can go there.

``st_dev`` is the same on both sides, and only the rename at the very end would fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fastload._read.file import identify
from stored_models import COMMIT, model_files, write_cache
from warming import MIB, Tiers, content

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"
SHARD = "model-00001-of-00002.safetensors"
SHARD_BYTES = 9 * MIB
FILES = model_files(0, SHARD_BYTES)
BLOCK = 4 * MIB


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    """A model on the mount, and none on the local tier."""
    write_cache(tmp_path / "shared", REPO, COMMIT, FILES)
    return Tiers(tmp_path)


def with_mount(tiers: Tiers, folder: str, *words: object) -> subprocess.CompletedProcess[str]:
    """``fastload`` where that ``folder`` of the repo is bound onto itself, in a mount namespace of its own."""
    at = tiers.repo(REPO) / folder
    at.mkdir(parents=True, exist_ok=True)
    mounted = ["unshare", "--mount", "sh", "-c", f'mount --bind {at} {at} && exec "$@"', "sh"]
    tried = subprocess.run([*mounted, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"may not mount here: {tried.stderr}")
    command = [*mounted, sys.executable, "-m", "fastload", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=tiers.environment, timeout=120
    )  # fmt: skip


def damage(tiers: Tiers, snapshot: Path) -> Path:
    """Flip a bit of a shard on the local tier; where it is."""
    path = (snapshot / SHARD).resolve()
    assert path.is_relative_to(tiers.local)
    raw = bytearray(path.read_bytes())
    raw[5 * MIB] ^= 1
    path.write_bytes(raw)
    return path


def is_told(said: str, tiers: Tiers, folder: str) -> bool:
    """True if it says which mounts, and what to do."""
    repo = tiers.repo(REPO)
    where = f"'{repo}/{folder}': it is on another mount than '{repo}/.fastload/staging'"
    return where in said and f"Mount '{repo}' as a whole" in said


@pytest.mark.parametrize("folder", ["blobs", "snapshots"])
def test_warm_says_so_before_a_byte_moves(tiers: Tiers, folder: str) -> None:
    done = with_mount(tiers, folder, "warm", REPO, "--json")
    assert done.returncode == 15, done.stderr
    assert is_told(json.loads(done.stdout)["error"]["message"], tiers, folder)
    assert tiers.staged(REPO) == []
    assert content(tiers.warm(REPO)) == FILES


def test_what_has_its_place_already_may_be_on_another_mount(tiers: Tiers) -> None:
    """As the hub's client leaves it: only the manifest is made."""
    snapshot = write_cache(tiers.local, REPO, COMMIT, FILES)
    done = with_mount(tiers, "blobs", "warm", REPO)
    assert (done.returncode, done.stdout) == (0, f"{snapshot}\n"), done.stderr
    assert [file.path for file in tiers.manifest(REPO, COMMIT).files] == sorted(FILES)


def test_a_lost_link_to_a_blob_there_is_made_again(tiers: Tiers) -> None:
    snapshot = tiers.warm(REPO)
    (snapshot / SHARD).unlink()
    done = with_mount(tiers, "blobs", "verify", REPO, "--repair")
    assert done.returncode == 0, done.stderr
    assert content(snapshot) == FILES


def test_what_turns_out_wrong_there_is_not_brought_in_vain(tiers: Tiers) -> None:
    damage(tiers, write_cache(tiers.local, REPO, COMMIT, FILES))
    done = with_mount(tiers, "blobs", "warm", REPO)
    assert done.returncode == 15 and is_told(done.stderr, tiers, "blobs"), done.stderr
    assert tiers.staged(REPO) == []


def test_a_plain_folder_says_so_too(tiers: Tiers) -> None:
    plain = tiers.folder / "plain"
    done = with_mount(tiers, str(plain / ".fastload"), "warm", REPO, "--plain", plain)
    assert done.returncode == 15, done.stderr
    assert f"'{plain}': it is on another mount than '{plain}/.fastload/staging'" in done.stderr
    assert content(plain) == {}


def test_a_load_does_without_the_copy(tiers: Tiers) -> None:
    done = with_mount(tiers, "blobs", "load", REPO)
    assert done.returncode == 0, done.stderr
    assert is_told(done.stderr, tiers, "blobs")
    assert tiers.staged(REPO) == []


def test_a_load_that_could_mend_marks_instead_and_copies_nothing_in_vain(tiers: Tiers) -> None:
    path = damage(tiers, tiers.warm(REPO))
    before = identify(path.stat())
    done = with_mount(tiers, "blobs", "load", REPO, "--json")
    assert done.returncode == 0, done.stderr
    assert "stays damaged, though what was loaded is right" in done.stderr and is_told(done.stderr, tiers, "blobs")
    report = json.loads(done.stdout)
    assert report["bytes_by_tier"][f"shared:{tiers.shared}"] == BLOCK
    assert report["bytes_read"] < 2 * SHARD_BYTES + 4 * BLOCK  # two headers, and the block once more: not the rest
    assert identify(path.stat()) == before
    assert marked(tiers) == [SHARD]
    assert tiers.staged(REPO) == []
    tiers.run("load", REPO)
    assert path.read_bytes() == FILES[SHARD] and marked(tiers) == []


def test_verify_says_so_too(tiers: Tiers) -> None:
    path = damage(tiers, tiers.warm(REPO))
    done = with_mount(tiers, "blobs", "verify", REPO, "--repair", "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 15 and is_told(error["message"], tiers, "blobs")
    assert [finding["block"] for finding in error["findings"]] == [1]
    assert marked(tiers) == [SHARD]
    assert path.read_bytes() != FILES[SHARD]


def test_of_a_file_as_a_whole_nothing_is_fetched_in_vain(tiers: Tiers) -> None:
    """Where the name of the blob is all that is known."""
    snapshot = write_cache(tiers.local, REPO, COMMIT, FILES)
    path = damage(tiers, snapshot)
    done = with_mount(tiers, "blobs", "verify", REPO, "--repair", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 15 and is_told(found["error"]["message"], tiers, "blobs")
    assert f"shared:{tiers.shared}" not in found.get("bytes_by_tier", {})
    assert path.read_bytes() != FILES[SHARD]
    assert tiers.run("verify", REPO, "--repair").returncode == 0
    assert path.read_bytes() == FILES[SHARD]


def marked(tiers: Tiers) -> list[str]:
    """The files of the snapshot that are marked as damaged."""
    (facts,) = (each for each in json.loads(tiers.run("ls", "--json").stdout)["snapshots"] if each["tier"] == "local")
    details: list[str] = facts["details"]
    return details if facts["state"] == "damaged" else []
