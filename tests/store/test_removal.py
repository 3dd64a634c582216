"""A snapshot that is removed takes with it what nobody else needs, and at no moment anything else."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import scan_cache_dir

import kill_sweep
from caches import BLOB_BYTES, Cache, content_of
from fastload._store.keep import grave, removal
from fastload._store.keep.reclaim import reclaim_leftovers
from fastload._store.keep.removal import finish_removals, remove_snapshot
from fastload._store.keep.usage import find_needed_blobs
from fastload.errors import NotWritableError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from fastload._store.layout import RepoLayout

STEPS = 40
"""More than a removal takes."""


def _name(seed: int) -> str:
    return hashlib.sha256(content_of(seed)).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "hub")


def test_the_only_snapshot_takes_the_repo_with_it(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"config.json": 1, "unet/model.safetensors": 2})
    other = cache.add("org/b", 2, {"config.json": 3})
    layout = cache.layout("org/a")
    for path in (layout.tree(commit), layout.pin(commit), f"{layout.folder}/.no_exist/{commit}/adapter.json"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "wb").close()
    assert remove_snapshot(layout, commit) >= 2 * BLOB_BYTES
    assert cache.check() == {("org/b", other)}
    assert not os.path.exists(layout.folder)


def test_what_another_snapshot_needs_stays(cache: Cache) -> None:
    first = cache.add("org/a", 1, {"config.json": 1, "w": 2}, ref="refs/pr/1")
    second = cache.add("org/a", 2, {"config.json": 1, "w": 3}, source=None)
    assert BLOB_BYTES <= remove_snapshot(cache.layout("org/a"), first) < 2 * BLOB_BYTES
    assert cache.check() == {("org/a", second)}
    assert cache.has("org/a", second)
    assert os.path.exists(cache.layout("org/a").ref("main"))
    remove_snapshot(cache.layout("org/a"), second)
    assert cache.check() == set()


def test_the_hubs_own_removal_and_ours_leave_the_same(cache: Cache, tmp_path: Path) -> None:
    first = cache.add("org/a", 1, {"config.json": 1, "w": 2}, source=None)
    cache.add("org/a", 2, {"config.json": 1, "w": 3}, source=None)
    theirs = Cache(tmp_path / "theirs")
    shutil.copytree(cache.root, theirs.root, symlinks=True)
    scan_cache_dir(theirs.root).delete_revisions(first).execute()
    remove_snapshot(cache.layout("org/a"), first)
    assert cache.check() == theirs.check()
    assert cache.blobs("org/a") == theirs.blobs("org/a")


def test_blobs_that_are_reached_by_other_ways_count_as_needed(cache: Cache, tmp_path: Path) -> None:
    """A hard link needs no blob any more, but a link by another path to the cache does."""
    first = cache.add("org/a", 1, {"w": 1, "v": 2, "u": 3})
    layout = cache.layout("org/a")
    (tmp_path / "alias").symlink_to(cache.root)
    other = os.path.join(layout.snapshots, "not-a-commit")
    os.mkdir(other)
    alias = layout.blob(_name(1)).replace(str(cache.root), str(tmp_path / "alias"))
    os.symlink(alias, os.path.join(other, "w"))
    os.link(layout.blob(_name(2)), os.path.join(other, "v"))
    assert BLOB_BYTES <= remove_snapshot(layout, first) < 2 * BLOB_BYTES
    assert cache.blobs("org/a") == {_name(1), _name(2)}
    assert cache.has("org/a", "not-a-commit")


def test_of_a_blob_that_is_a_link_to_a_store_of_the_hubs_only_the_link_goes(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    blob = cache.layout("org/a").blob(_name(1))
    shared = cache.root / "blobs" / "ab" / "abcd"
    shared.parent.mkdir(parents=True)
    (cache.root / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    os.rename(blob, shared)
    os.symlink(os.path.relpath(shared, os.path.dirname(blob)), blob)
    assert remove_snapshot(cache.layout("org/a"), commit) < BLOB_BYTES
    assert shared.read_bytes() == content_of(1)
    assert scan_cache_dir(cache.root).warnings == []


def test_a_blob_that_another_tool_writes_anew_is_left_to_it(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    incomplete = f"{_name(1)}.0a1b2c3d.incomplete"
    open(cache.layout("org/a").blob(incomplete), "wb").close()
    remove_snapshot(cache.layout("org/a"), commit)
    assert cache.blobs("org/a") == {_name(1), incomplete}
    cache.check_valid()


def test_links_that_lead_out_of_the_repo_are_not_followed(cache: Cache, tmp_path: Path) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    folder = cache.layout("org/a").snapshot(commit)
    os.symlink(outside / "precious", f"{folder}/x")
    os.symlink(outside, f"{folder}/y")
    os.symlink("../../../../outside/precious", f"{folder}/z")
    remove_snapshot(cache.layout("org/a"), commit)
    assert (outside / "precious").read_bytes() == b"1"
    assert cache.check() == set()


def test_below_a_link_in_the_place_of_a_folder_nothing_is_removed(cache: Cache, tmp_path: Path) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    outside = tmp_path / "outside"
    (outside / commit / "deep").mkdir(parents=True)
    (outside / "empty").mkdir()
    os.symlink(outside, f"{cache.layout('org/a').folder}/.no_exist")
    remove_snapshot(cache.layout("org/a"), commit)
    assert (outside / commit / "deep").is_dir() and (outside / "empty").is_dir()


@pytest.mark.parametrize("planted", ["grave", "blobs"])
def test_a_grave_that_leads_elsewhere_is_not_gone_on_with(cache: Cache, tmp_path: Path, planted: str) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    layout, outside = cache.layout("org/a"), tmp_path / "outside"
    (outside / "blobs").mkdir(parents=True)
    (outside / "blobs" / _name(1)).write_bytes(b"precious")
    os.unlink(layout.blob(_name(1)))
    planted_at = layout.ours("staging", f"removed.{commit}.0123456789abcdef")
    os.makedirs(os.path.dirname(planted_at), exist_ok=True)
    if planted == "grave":
        os.symlink(outside, planted_at)
    else:
        os.makedirs(planted_at)
        os.symlink(outside / "blobs", os.path.join(planted_at, "blobs"))
    assert finish_removals(layout) == 0
    assert os.listdir(outside) == ["blobs"] and os.listdir(outside / "blobs") == [_name(1)]
    assert not os.listdir(layout.blobs) and not os.listdir(layout.ours("staging"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_grave_of_another_user_is_left_to_him(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    layout = cache.layout("org/a")
    theirs = layout.ours("staging", f"removed.{commit}.0123456789abcdef")
    os.makedirs(f"{theirs}/blobs")
    os.rename(layout.blob(_name(1)), f"{theirs}/blobs/{_name(1)}")
    os.chown(theirs, 65534, 65534)
    assert finish_removals(layout) == 0
    assert os.listdir(f"{theirs}/blobs") == [_name(1)] and not os.listdir(layout.blobs)
    a_day_ns = 24 * 3600 * 1_000_000_000
    assert reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + a_day_ns // 2) == 0
    lock = os.open(f"{theirs}/lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + 2 * a_day_ns) == 0
    os.close(lock)
    assert reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + 2 * a_day_ns) > 0
    assert not os.path.exists(theirs)


def test_what_is_not_there_is_no_error(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    layout = cache.layout("org/a")
    remove_snapshot(layout, commit)
    assert remove_snapshot(layout, commit) == 0
    assert not os.path.exists(layout.folder)


def test_a_snapshot_that_cannot_be_read_might_need_any_blob(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cache.add("org/a", 1, {"w": 1})
    second = cache.add("org/a", 2, {"w": 1}, source=None)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith(second):
            raise PermissionError(13, os.strerror(13), path)
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        with pytest.raises(StoreError, match="cannot be read"):
            remove_snapshot(cache.layout("org/a"), first)
    assert cache.has("org/a", second)
    finish_removals(cache.layout("org/a"))
    assert cache.check() == {("org/a", second)}


def test_what_may_not_be_removed_stays_as_it_is(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NotWritableError, match="cannot be written"):
        remove_snapshot(cache.layout("org/a"), commit)
    assert cache.check() == {("org/a", commit)}
    assert os.path.exists(cache.layout("org/a").ref("main"))


def test_who_publishes_a_link_to_a_blob_while_it_is_removed_gets_it_back(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache.add("org/a", 1, {"w": 1, "v": 2})
    layout = cache.layout("org/a")
    second = f"{2:040x}"

    def publish_after(found: RepoLayout) -> set[str]:
        needed = find_needed_blobs(found)
        os.mkdir(layout.snapshot(second))
        os.symlink(f"../../blobs/{_name(1)}", os.path.join(layout.snapshot(second), "w"))
        return needed

    monkeypatch.setattr(removal, "find_needed_blobs", publish_after)
    assert BLOB_BYTES <= remove_snapshot(layout, first) < 2 * BLOB_BYTES
    assert cache.check() == {("org/a", second)}
    assert cache.has("org/a", second)


def test_whoever_takes_a_removal_over_goes_on_alone(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cache.add("org/a", 1, {"w": 1, "v": 2})
    second = cache.add("org/a", 2, {"w": 1})
    layout = cache.layout("org/a")

    def be_overtaken(found: RepoLayout) -> set[str]:
        monkeypatch.undo()
        assert finish_removals(layout) == 0  # not from one who lives
        monkeypatch.setattr(grave, "flock_is_truthful", lambda _: False)
        assert finish_removals(layout) >= BLOB_BYTES
        return set()  # as if nothing was needed

    monkeypatch.setattr(removal, "find_needed_blobs", be_overtaken)
    assert remove_snapshot(layout, first) == 0
    assert cache.check() == {("org/a", second)}
    assert cache.has("org/a", second)


def test_whoever_loses_an_empty_grave_digs_another(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    layout = cache.layout("org/a")

    def be_overtaken(found: RepoLayout) -> dict[str, str]:
        monkeypatch.undo()
        monkeypatch.setattr(grave, "flock_is_truthful", lambda _: False)
        finish_removals(layout)
        return {"main": commit}

    monkeypatch.setattr(removal, "list_refs", be_overtaken)
    assert remove_snapshot(layout, commit) >= BLOB_BYTES
    assert cache.check() == set()


def test_of_two_who_take_over_one_goes_on(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    layout = cache.layout("org/a")
    with grave.dig(layout, commit) as dug:
        os.rename(layout.snapshot(commit), dug.snapshot)
    name = os.path.basename(dug.path)
    monkeypatch.setattr(grave, "_is_alive", lambda _: False)
    taken = grave.take_over(layout, name)
    assert taken is not None
    assert grave.take_over(layout, name) is None
    with taken:
        assert os.path.isdir(taken.snapshot)


def test_a_manifest_that_was_brought_anew_meanwhile_stays(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    layout = cache.layout("org/a")
    move = removal._move

    def move_and_be_overtaken(path: str, target: str) -> bool:
        moved = move(path, target)
        if path == layout.snapshot(commit):
            cache.add("org/a", 1, {"w": 1})
        return moved

    monkeypatch.setattr(removal, "_move", move_and_be_overtaken)
    remove_snapshot(layout, commit)
    assert os.path.exists(layout.manifest(commit))
    assert cache.check() == {("org/a", commit)}


def test_killed_at_any_step_the_cache_is_valid_and_the_next_run_reclaims(cache: Cache) -> None:
    removed = cache.add("org/a", 1, {"config.json": 1, "w": 2, "v": 3})
    kept = cache.add("org/a", 2, {"config.json": 1, "w": 4}, ref="next")
    alone = cache.add("org/b", 3, {"w": 5})
    for repo, commit in (("org/a", removed), ("org/b", alone)):
        with kill_sweep.copied(cache.root, STEPS) as roots:
            assert 8 < kill_sweep.sweep(f"remove {repo} {commit}", roots) < STEPS
            for root in roots:
                left = Cache(root)
                left.check_valid()
                assert left.has("org/a", kept)
                is_whole = left.has(repo, commit)  # if it is visible, so are all its blobs
                reclaim_leftovers(str(root))
                rest = {("org/a", removed), ("org/a", kept), ("org/b", alone)} - {(repo, commit)}
                assert left.check() == (rest | {(repo, commit)} if is_whole else rest)
                staging = left.layout(repo).ours("staging")
                assert not os.path.isdir(staging) or not os.listdir(staging)


def test_killed_while_it_reclaims_the_next_run_reclaims(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1, "v": 2})
    kept = cache.add("org/a", 2, {"w": 1}, ref="next")
    layout = cache.layout("org/a")
    with grave.dig(layout, commit) as dug:
        os.unlink(layout.ref("main"))
        os.rename(layout.snapshot(commit), dug.snapshot)
        os.rename(layout.blob(_name(2)), f"{dug.blobs}/{_name(2)}")
        os.rename(layout.blob(_name(1)), f"{dug.blobs}/{_name(1)}")  # as if somebody had come to need it since
    with kill_sweep.copied(cache.root, STEPS) as roots:
        assert 4 < kill_sweep.sweep("reclaim", roots) < STEPS
        for root in roots:
            reclaim_leftovers(str(root))
            assert Cache(root).check() == {("org/a", kept)}
            assert Cache(root).has("org/a", kept)
