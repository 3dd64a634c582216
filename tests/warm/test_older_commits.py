"""Where room is needed for a new commit, an older one of the same repo may go, like any other; what it shares stays."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import NoSpaceError, Options
from fastload._store.layout import RepoLayout
from stored_models import COMMIT, write_cache
from warming import MIB, check_cache, large_shard

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"
OLD, NEW = COMMIT, "0ddba11" * 5 + "abcde"
SHARED_SHARD, CONFIG = large_shard(MIB, 9), b'{"model_type": "bert"}'


def _version(seed: int) -> dict[str, bytes]:
    """Half of each version is its own."""
    return {"model.safetensors": large_shard(2 * MIB, seed), "adapter.safetensors": SHARED_SHARD, "config.json": CONFIG}


class Place:
    """A mount with two versions, of which the old one was warmed an hour ago, and room for little more than one."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.local, self.shared = folder / "local", folder / "shared"
        write_cache(self.shared, REPO, OLD, _version(1))
        write_cache(self.shared, REPO, NEW, _version(2))
        self.options = Options(
            local=str(self.local), shared=str(self.shared), tiers=("local", "shared"), local_max_bytes=max_bytes
        )
        self.layout = RepoLayout(str(self.local / "models--org--name"))
        fastload.warm(f"{REPO}@{OLD}", options=self.options)
        self.rest(OLD)

    def rest(self, commit: str) -> None:
        """The snapshot was used an hour ago for the last time."""
        for path in (self.layout.manifest(commit), self.layout.stamp(commit)):
            os.utime(path, (time.time() - 3600,) * 2)

    def has(self, commit: str) -> bool:
        return os.path.isdir(self.layout.snapshot(commit))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, 4 * MIB)


def test_the_older_commit_goes_and_what_both_share_stays(place: Place) -> None:
    snapshot = fastload.warm(f"{REPO}@{NEW}", options=place.options)
    assert place.has(NEW)
    assert not place.has(OLD)
    assert not os.path.exists(place.layout.manifest(OLD))
    assert check_cache(place.local, _version(2)) == 1
    assert fastload.verify(snapshot.path).findings == ()


def test_one_that_is_pinned_stays_and_the_new_one_finds_no_room(place: Place) -> None:
    fastload.pin(f"{REPO}@{OLD}", options=place.options)
    with pytest.raises(NoSpaceError, match="local_max_bytes"):
        fastload.warm(f"{REPO}@{NEW}", options=place.options)
    assert check_cache(place.local, _version(1)) == 1


def test_one_that_is_being_read_stays(place: Place) -> None:
    with fastload.stream(f"{REPO}@{OLD}", options=place.options) as stream:
        next(stream)
        place.rest(OLD)
        with pytest.raises(NoSpaceError):
            fastload.warm(f"{REPO}@{NEW}", options=place.options)
    assert check_cache(place.local, _version(1)) == 1


def test_one_that_was_just_used_stays(place: Place) -> None:
    fastload.load(f"{REPO}@{OLD}", options=place.options)
    with pytest.raises(NoSpaceError):
        fastload.warm(f"{REPO}@{NEW}", options=place.options)
    assert place.has(OLD)


def test_a_load_from_a_mount_makes_room_for_its_copy_in_the_same_way(place: Place) -> None:
    fastload.load(f"{REPO}@{NEW}", options=place.options)
    assert fastload.resolve(f"{REPO}@{NEW}", options=place.options).tier == "local"
    assert not place.has(OLD)


def test_a_snapshot_does_not_go_to_make_room_for_more_of_itself(place: Place) -> None:
    shutil.rmtree(place.shared)
    write_cache(place.shared, REPO, OLD, {**_version(1), "more.gguf": b"GGUF" + bytes(2 * MIB)})
    with pytest.raises(NoSpaceError):
        fastload.warm(f"{REPO}@{OLD}", include="*.gguf", options=place.options)
    assert check_cache(place.local, _version(1)) == 1


def test_nor_to_make_room_for_what_it_has_lost(place: Place) -> None:
    blob = os.path.realpath(os.path.join(place.layout.snapshot(OLD), "model.safetensors"))
    os.truncate(blob, MIB)
    with pytest.raises(NoSpaceError):
        fastload.warm(f"{REPO}@{OLD}", options=replace(place.options, local_max_bytes=int(3.5 * MIB)))
    assert sorted(os.listdir(place.layout.snapshot(OLD))) == sorted(_version(1))


def test_one_all_of_whose_blobs_the_new_one_needs_stays(place: Place) -> None:
    """It would go for nothing."""
    shutil.rmtree(place.shared)
    write_cache(place.shared, REPO, NEW, {**_version(1), "more.safetensors": large_shard(2 * MIB, 3)})
    with pytest.raises(NoSpaceError):
        fastload.warm(f"{REPO}@{NEW}", options=place.options)
    assert check_cache(place.local, _version(1)) == 1


def test_the_least_recently_used_goes_first_whosever_it_is(tmp_path: Path) -> None:
    place = Place(tmp_path, 8 * MIB)
    write_cache(place.shared, "org/other", OLD, _version(3))
    fastload.warm("org/other", options=place.options)
    other = RepoLayout(str(place.local / "models--org--other"))
    for path in (other.manifest(OLD), other.stamp(OLD)):
        os.utime(path, (time.time() - 7200,) * 2)
    fastload.warm(f"{REPO}@{NEW}", options=place.options)
    assert (place.has(OLD), place.has(NEW), os.path.isdir(other.snapshot(OLD))) == (True, True, False)
