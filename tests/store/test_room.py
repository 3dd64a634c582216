"""Room is asked for before the first byte, and two that do not fit together cannot both get it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from caches import BLOB_BYTES, Cache
from fastload._settings.values import Share
from fastload._store.keep import room
from fastload._store.keep.evict import evict
from fastload._store.keep.room import Limits, check_room, reserving
from fastload._store.layout import lease_folder
from fastload.errors import NoSpaceError, StoreError
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk of 100 MiB, of which 30 are free for this user and 40 for root."""
    facts = SimpleNamespace(f_frsize=4096, f_blocks=25600, f_bfree=10240, f_bavail=7680)
    monkeypatch.setattr(os, "statvfs", lambda _: facts)
    return facts


def _limits(min_free: Share | None = None, max_bytes: int | None = None) -> Limits:
    return Limits(min_free=min_free or Share(), max_bytes=max_bytes)


def test_what_fits_exactly_fits(tmp_path: Path, disk: SimpleNamespace) -> None:
    check_room(str(tmp_path), 30 * MIB, _limits())
    check_room(str(tmp_path), 25 * MIB, _limits(Share(fraction=0.05)))
    check_room(str(tmp_path), 29 * MIB, _limits(Share(nbytes=MIB)))
    check_room(str(tmp_path), 3 * MIB, _limits(max_bytes=3 * MIB))


@pytest.mark.parametrize(
    ("needed", "limits", "numbers"),
    [
        (30 * MIB + 1, _limits(), ("31,457,281", "31,457,280 are free", "0 must stay free", "1 are missing")),
        (25 * MIB + 1, _limits(Share(fraction=0.05)), ("5,242,880 must stay free", "1 are missing")),
        (3 * MIB + 1, _limits(max_bytes=3 * MIB), ("local_max_bytes is 3,145,728", "1 are missing", "--exclude")),
    ],
)
def test_what_does_not_fit_is_refused_with_all_numbers(
    tmp_path: Path, disk: SimpleNamespace, needed: int, limits: Limits, numbers: tuple[str, ...]
) -> None:
    with pytest.raises(NoSpaceError) as caught:
        check_room(str(tmp_path), needed, limits)
    assert caught.value.exit_code == 14
    assert caught.value.path == str(tmp_path)
    for number in (*numbers, f"{needed:,}"):
        assert number in str(caught.value)


def test_what_needs_nothing_fits_on_any_disk(tmp_path: Path, disk: SimpleNamespace) -> None:
    """What is staged or there already needs no more room, however full the disk is."""
    disk.f_bavail = 0
    check_room(str(tmp_path), 0, _limits(Share(fraction=0.5), max_bytes=0))


def test_a_root_that_is_not_made_yet_is_measured_by_the_folder_above(tmp_path: Path) -> None:
    check_room(str(tmp_path / "not" / "made" / "yet"), 1, _limits())


def test_the_cap_counts_what_fastload_keeps_and_stages_not_what_others_keep(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.add("org/ours", 1, {"a": 1, "b": 2})
    cache.add("org/theirs", 2, {"a": 3, "b": 4, "c": 5}, source=None)
    cache.add("org/recorded", 3, {"a": 6}, source="local")
    cap = _limits(max_bytes=4 * BLOB_BYTES)
    check_room(str(tmp_path), 2 * BLOB_BYTES, cap)
    with pytest.raises(NoSpaceError, match=f"fastload keeps {2 * BLOB_BYTES:,} there") as caught:
        check_room(str(tmp_path), 2 * BLOB_BYTES + 1, cap)
    assert str(caught.value).endswith("; or raise local_max_bytes"), "the disk has room"
    staging = tmp_path / "models--org--ours" / ".fastload" / "staging"
    staging.mkdir()
    (staging / "part").write_bytes(bytes(BLOB_BYTES))
    with pytest.raises(NoSpaceError, match=f"fastload keeps {3 * BLOB_BYTES:,} there"):
        check_room(str(tmp_path), 2 * BLOB_BYTES, cap)


def test_what_is_short_is_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    old = cache.add("org/old", 1, {"a": 1}, used_s_ago=7200)
    new = cache.add("org/new", 2, {"a": 2})
    asked: list[int] = []

    def free(shortfall_bytes: int) -> int:
        asked.append(shortfall_bytes)
        return sum(kept.nbytes for kept in evict(str(tmp_path), shortfall_bytes))

    with reserving(str(tmp_path), BLOB_BYTES, _limits(max_bytes=2 * BLOB_BYTES), free):
        assert asked == [BLOB_BYTES]
        assert cache.check() == {("org/new", new)}
    assert not cache.has("org/old", old)
    cache.use("org/new", new, 0)
    with pytest.raises(NoSpaceError), reserving(str(tmp_path), 2 * BLOB_BYTES, _limits(max_bytes=2 * BLOB_BYTES), free):
        pytest.fail("there is no room")
    with pytest.raises(NoSpaceError), reserving(str(tmp_path), 2 * BLOB_BYTES, _limits(max_bytes=2 * BLOB_BYTES), None):
        pytest.fail("there is no room")


_RESERVE = """
    import sys, time
    from fastload._settings.values import Share
    from fastload._store.filesystem import reserve
    from fastload._store.keep.room import Limits, reserving
    from fastload.errors import NoSpaceError

    root, name = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with reserving(root, 600 << 10, Limits(min_free=Share(), max_bytes=1 << 20), None):
            time.sleep(0.2)
            with open(f"{root}/models--org--a/.fastload/staging/{name}", "wb") as file:
                reserve(file.fileno(), 600 << 10)
        print("got it")
    except NoSpaceError:
        print("no room")
"""


def test_two_that_do_not_fit_together_do_not_both_get_room(tmp_path: Path) -> None:
    (tmp_path / "models--org--a" / ".fastload" / "staging").mkdir(parents=True)
    command = [sys.executable, "-c", textwrap.dedent(_RESERVE), str(tmp_path)]
    both = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0] for process in both) == ["got it\n", "no room\n"]


def test_who_holds_the_room_for_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PATIENCE_S", 0.2)
    os.makedirs(lease_folder(str(tmp_path)))
    with open(os.path.join(lease_folder(str(tmp_path)), "room.lock"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        begin_s = time.monotonic()
        with Stopwatch() as watch, reserving(str(tmp_path), 1, _limits(), None):
            assert time.monotonic() - begin_s >= 0.2
        assert watch.seconds < 2.5


@pytest.fixture
def endless_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets in was not let in because its patience was over."""
    monkeypatch.setattr(room, "_PATIENCE_S", 1e9)


@pytest.mark.usefixtures("endless_patience")
def test_the_next_one_gets_in_as_soon_as_the_room_is_free(tmp_path: Path) -> None:
    os.makedirs(lease_folder(str(tmp_path)))
    is_free = threading.Event()
    with open(os.path.join(lease_folder(str(tmp_path)), "room.lock"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def free() -> None:
            is_free.set()
            fcntl.flock(file, fcntl.LOCK_UN)

        timer = threading.Timer(0.1, free)
        timer.start()
        with reserving(str(tmp_path), 1, _limits(), None):
            assert is_free.is_set()
        timer.join()


@pytest.mark.usefixtures("endless_patience")
def test_where_locks_do_not_work_the_disk_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with reserving(str(tmp_path), 1, _limits(), None):
        pass


def test_a_lock_of_another_user_can_be_held_nevertheless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reserving(str(tmp_path), 1, _limits(), None):
        pass
    really_open = os.open

    def refuse_to_write(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR and path.endswith("room.lock"):
            raise PermissionError(13, os.strerror(13))
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse_to_write)
    with (
        reserving(str(tmp_path), 1, _limits(), None),
        open(os.path.join(lease_folder(str(tmp_path)), "room.lock"), "rb") as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_disk_that_does_not_answer_is_an_error_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "statvfs", fail)
    with pytest.raises(StoreError, match="cannot be asked for its room"):
        check_room(str(tmp_path), 1, _limits())
