"""Eviction takes what fastload brought and nobody needs, the least recently used first, and never anything else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

import kill_sweep
from caches import BLOB_BYTES, Cache
from fastload._store.keep.evict import Kept, evict, list_kept, plan_evictions, touch_used
from fastload._store.keep.pin import pin
from fastload._store.layout import lease_folder
from fastload._store.lease import inuse
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.lock import hold_shared, open_lock
from fastload._store.lease.wait import try_hold

if TYPE_CHECKING:
    from pathlib import Path

ALL = 1 << 40
STEPS = 80
"""More than two removals take."""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "hub")


def _commits(kept: list[Kept]) -> list[str]:
    return [each.commit for each in kept]


def test_the_least_recently_used_goes_first_and_no_more_than_is_wanted(cache: Cache) -> None:
    second = cache.add("org/b", 1, {"w": 1}, used_s_ago=8000)
    third = cache.add("org/c", 2, {"w": 2}, used_s_ago=7000)
    first = cache.add("org/a", 3, {"w": 3}, used_s_ago=9000)
    assert _commits(list_kept(str(cache.root))) == [first, second, third]
    planned = plan_evictions(str(cache.root), 3 * BLOB_BYTES // 2)
    assert cache.has("org/a", first)
    evicted = evict(str(cache.root), 3 * BLOB_BYTES // 2)
    assert _commits(evicted) == _commits(planned) == [first, second]
    assert all(kept.nbytes >= BLOB_BYTES for kept in evicted)
    assert cache.check() == {("org/c", third)}


def test_nothing_goes_where_nothing_is_wanted(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    assert evict(str(cache.root), 0) == []
    assert cache.check() == {("org/a", commit)}


def test_using_a_snapshot_keeps_it(cache: Cache) -> None:
    old = cache.add("org/a", 1, {"w": 1}, used_s_ago=9000)
    new = cache.add("org/b", 2, {"w": 2}, used_s_ago=8000)
    touch_used(cache.layout("org/a"), old)
    touch_used(cache.layout("org/none"), old)
    assert _commits(evict(str(cache.root), ALL)) == [new]
    now_ns = time.time_ns() + 601 * 1_000_000_000
    assert _commits(evict(str(cache.root), ALL, now_ns=now_ns)) == [old]


def test_a_snapshot_to_which_a_tool_added_files_is_the_tools_too(cache: Cache) -> None:
    commit = cache.add("org/name", 1, {"w": 1})
    added = os.path.join(cache.layout("org/name").snapshot(commit), "added.bin")
    with open(added, "wb") as file:
        file.write(b"not in the manifest")
    assert evict(str(cache.root), ALL) == []
    os.unlink(added)
    assert _commits(evict(str(cache.root), ALL)) == [commit]


def test_what_is_anothers_pinned_recorded_or_just_brought_stays(cache: Cache) -> None:
    theirs = cache.add("org/theirs", 1, {"w": 1}, source=None)
    pinned = cache.add("org/pinned", 2, {"w": 2})
    recorded = cache.add("org/recorded", 3, {"w": 3}, source="local")
    fresh = cache.add("org/fresh", 4, {"w": 4}, used_s_ago=500)
    garbled = cache.add("org/garbled", 5, {"w": 5})
    pin(cache.layout("org/pinned"), pinned)
    with open(cache.layout("org/garbled").manifest(garbled), "wb") as file:
        file.write(b'{"source":"hub"}')
    cache.use("org/garbled", garbled, 9000)
    assert evict(str(cache.root), ALL) == []
    assert cache.check() == {
        ("org/theirs", theirs),
        ("org/pinned", pinned),
        ("org/recorded", recorded),
        ("org/fresh", fresh),
        ("org/garbled", garbled),
    }
    facts = {kept.repo: (kept.is_pinned, kept.is_in_use) for kept in list_kept(str(cache.root))}
    assert facts == {"org/pinned": (True, False), "org/fresh": (False, False)}


@pytest.mark.parametrize("name", ["hub", 'a "hub"', "back\\slash", "ü"])
def test_what_is_from_the_root_itself_stays_however_the_root_is_called(tmp_path: Path, name: str) -> None:
    cache = Cache(tmp_path / name)
    cache.add("org/own", 1, {"w": 1}, source=f"shared:{cache.root}")
    brought = cache.add("org/brought", 2, {"w": 2}, source=f"shared:{cache.root}2")
    assert _commits(evict(str(cache.root), ALL)) == [brought]


def test_of_one_repo_only_what_fastload_brought_goes(cache: Cache) -> None:
    theirs = cache.add("org/a", 1, {"config.json": 1, "w": 2}, source=None)
    ours = cache.add("org/a", 2, {"config.json": 1, "w": 3}, ref="next")
    evicted = evict(str(cache.root), ALL)
    assert _commits(evicted) == [ours]
    assert BLOB_BYTES <= evicted[0].nbytes < 2 * BLOB_BYTES
    assert cache.check() == {("org/a", theirs)}


def test_what_would_free_nothing_stays(cache: Cache) -> None:
    cache.add("org/a", 1, {"w": 1}, source=None)
    cache.add("org/a", 2, {"w": 1}, ref="next")
    assert evict(str(cache.root), ALL) == []
    assert len(cache.check()) == 2


def test_what_two_that_go_share_is_freed_with_the_second(cache: Cache) -> None:
    cache.add("org/a", 1, {"w": 1}, used_s_ago=9000)
    cache.add("org/a", 2, {"w": 1, "v": 2}, ref="next")
    planned = plan_evictions(str(cache.root), ALL)
    assert [kept.nbytes for kept in planned] == [0, 2 * BLOB_BYTES]
    evicted = evict(str(cache.root), ALL)
    assert evicted[0].nbytes < BLOB_BYTES < 2 * BLOB_BYTES <= evicted[1].nbytes
    assert cache.check() == set()


_READ = """
    import sys, time
    from fastload._store.lease.lock import hold_shared, open_lock

    assert hold_shared(open_lock(sys.argv[1]))
    print("reading", flush=True)
    sys.stdin.readline()
"""


def test_a_reader_keeps_its_snapshot_as_long_as_it_reads(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    other = cache.add("org/b", 2, {"w": 2})
    command = [sys.executable, "-c", textwrap.dedent(_READ), cache.layout("org/a").manifest(commit)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        assert [kept.commit for kept in list_kept(str(cache.root)) if kept.is_in_use] == [commit]
        assert _commits(evict(str(cache.root), ALL)) == [other]
        assert cache.check() == {("org/a", commit)}
        reader.kill()
        reader.wait()
        assert _commits(evict(str(cache.root), ALL)) == [commit]


def test_where_locks_do_not_tell_the_truth_nothing_goes(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    monkeypatch.setattr(inuse, "flock_is_truthful", lambda _: False)
    assert evict(str(cache.root), ALL) == []
    assert cache.has("org/a", commit)


def test_what_is_being_brought_stays_until_its_holder_ends_or_is_killed(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    lease = try_hold(lease_folder(str(cache.root)), "org--a", "warming org/a", LeaseTimes())
    assert lease is not None
    with lease:
        assert evict(str(cache.root), ALL) == []
    hold = f"""
        import os, signal
        from fastload._store.lease.lease import LeaseTimes
        from fastload._store.lease.wait import try_hold

        assert try_hold({lease_folder(str(cache.root))!r}, "org--a", "warming", LeaseTimes())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(hold)], check=False)
    assert os.listdir(lease_folder(str(cache.root)))
    assert _commits(evict(str(cache.root), ALL)) == [commit]
    record = os.path.join(lease_folder(str(cache.root)), "org--a.lease")
    commit = cache.add("org/a", 1, {"w": 1})
    with open(record, "wb") as file:
        file.write(b"garbled")
    assert evict(str(cache.root), ALL) == []


def test_who_pins_or_uses_it_at_the_last_moment_keeps_it(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, interfere in enumerate((pin, touch_used)):
        commit = cache.add(f"org/{number}", number, {"w": number})
        kept = list_kept(str(cache.root))
        with monkeypatch.context() as patched:
            patched.setattr("fastload._store.keep.evict._list_evictable", lambda *_, kept=kept: kept)
            interfere(cache.layout(f"org/{number}"), commit)
            assert evict(str(cache.root), ALL) == []
    assert len(cache.check()) == 2


def test_many_who_evict_at_once_remove_each_snapshot_once(cache: Cache) -> None:
    for number in range(8):
        cache.add("org/a", number, {"shared": 100, "w": number}, ref=f"v{number}")
    with open(cache.layout("org/a").ref("main"), "wb") as file:
        file.write(b"0" * 40)
    os.unlink(cache.layout("org/a").ref("main"))
    evicted: list[Kept] = []
    threads = [threading.Thread(target=lambda: evicted.extend(evict(str(cache.root), ALL))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(evicted) == len(set(_commits(evicted)))
    evict(str(cache.root), ALL)  # what each of two believed to be the other's
    assert cache.check() == set()


def test_a_manifest_that_may_only_be_read_keeps_readers_visible(cache: Cache) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    os.chmod(cache.layout("org/a").manifest(commit), 0o444)
    fd = open_lock(cache.layout("org/a").manifest(commit))
    assert hold_shared(fd)
    assert evict(str(cache.root), ALL) == []
    os.close(fd)
    assert _commits(evict(str(cache.root), ALL)) == [commit]


def test_a_repo_of_another_user_is_passed_over(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable = cache.add("org/unreadable", 1, {"w": 1})
    cache.add("org/unremovable", 2, {"w": 2}, used_s_ago=9000)
    ours = cache.add("org/ours", 3, {"w": 3})
    scandir, access = os.scandir, os.access

    def refuse(path: str) -> object:
        if str(path).endswith(unreadable):
            raise PermissionError(13, os.strerror(13), path)
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        patched.setattr(os, "access", lambda path, mode: "unremovable" not in path and access(path, mode))
        assert _commits(evict(str(cache.root), ALL)) == [ours]
    assert {repo for repo, _ in cache.check()} == {"org/unreadable", "org/unremovable"}


def test_a_manifest_that_is_a_link_is_nobodys_to_evict(cache: Cache, tmp_path: Path) -> None:
    commit = cache.add("org/a", 1, {"w": 1})
    manifest = cache.layout("org/a").manifest(commit)
    os.rename(manifest, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", manifest)
    assert [kept.is_in_use for kept in list_kept(str(cache.root))] == [True]
    assert evict(str(cache.root), ALL, now_ns=time.time_ns() + 10**12) == []


def test_killed_at_any_step_what_stays_is_whole_and_the_next_one_goes_on(cache: Cache) -> None:
    cache.add("org/a", 1, {"w": 1}, used_s_ago=9000)
    cache.add("org/b", 2, {"w": 2, "config.json": 3})
    theirs = cache.add("org/b", 3, {"w": 4, "config.json": 3}, source=None, ref="theirs")
    with kill_sweep.copied(cache.root, STEPS) as roots:
        assert 16 < kill_sweep.sweep(f"evict {ALL}", roots) < STEPS
        for root in roots:
            Cache(root).check_valid()
            evict(str(root), ALL)
            assert Cache(root).check() == {("org/b", theirs)}
            assert Cache(root).has("org/b", theirs)
