"""One holds, the others wait; and whatever becomes of the holder, its lease is not lost with it."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fastload._store.layout import lease_folder
from fastload._store.lease import wait as waiting
from fastload._store.lease.file import LeaseFile
from fastload._store.lease.wait import Sight, try_hold, wait_hold
from fastload._system_file import read_boot_id
from fastload.errors import LockTimeoutError, NoSpaceError, NotWritableError
from lease_holder import FAST
from lease_processes import LIES, build_shim, from_elsewhere, holder_process, released, run_crowd, timed
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastload._store.lease.holder import Holder
    from fastload._store.lease.lease import Lease

pytestmark = pytest.mark.usefixtures("leaks_nothing")
SLOW = replace(FAST, dead_after_s=1e9)
"""With it, whatever is noticed was not noticed by silence."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".locks" / "fastload"


def wait(folder: Path, times: object = FAST, names: tuple[str, ...] = ("x",)) -> Lease:
    """One of the leases, whenever it can be had."""
    lease = wait_hold(str(folder), names, "testing", times, is_done=lambda: False, tell=lambda _: None)  # type: ignore[arg-type]
    assert lease is not None
    return lease


def get_at_once(folder: Path) -> Lease:
    """The lease ``x``, whose holder's death shows at the first look."""
    told: list[Holder] = []
    lease = wait_hold(str(folder), ["x"], "testing", SLOW, is_done=lambda: False, tell=told.append)
    assert lease is not None and told == []
    return lease


def hold(folder: Path, name: str = "x") -> Lease:
    """The lease, which is free."""
    lease = try_hold(str(folder), name, "testing", FAST)
    assert lease is not None
    return lease


def record(folder: Path, name: str = "x") -> Holder:
    """Who holds it."""
    found = LeaseFile(str(folder), name).read()
    assert found is not None
    return found


def list_settled(folder: Path) -> list[str]:
    """The kinds of files there, but for the next record of one that beats just now."""
    return sorted(kind for kind in (name.split(".")[-1] for name in os.listdir(folder)) if kind != "new")


def until(condition: object, seconds: float = 20.0) -> None:
    """Wait for it to become true."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


class TestOneHolds:
    """What holds while nobody dies."""

    def test_nothing_remains_of_a_lease_that_was_released(self, folder: Path) -> None:
        with hold(folder) as lease:
            assert not lease.is_lost
            assert lease.name == "x"
            assert record(folder).pid == os.getpid()
        lease.release()
        assert os.listdir(folder) == []

    def test_it_cannot_be_held_twice(self, folder: Path) -> None:
        with hold(folder):
            assert try_hold(str(folder), "x", "testing", FAST) is None
            assert released(try_hold(str(folder), "y", "testing", FAST))
            assert list_settled(folder) == ["lease", "lock"]
        assert released(try_hold(str(folder), "x", "testing", FAST))

    def test_it_beats_and_tells_how_far_it_is(self, folder: Path) -> None:
        with hold(folder) as lease:
            lease.update(3, 10)
            until(lambda: record(folder).counter >= 3)
            assert (record(folder).done_bytes, record(folder).total_bytes) == (3, 10)

    def test_it_says_what_is_done_now(self, folder: Path) -> None:
        with hold(folder) as lease:
            lease.say("waiting for another")
            until(lambda: record(folder).what == "waiting for another")
            assert record(folder).done_bytes == 0

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
    def test_whatever_ends_the_work_releases(self, folder: Path, error: type[BaseException]) -> None:
        with pytest.raises(error), hold(folder):
            raise error
        assert os.listdir(folder) == []

    def test_sigterm_releases(self, folder: Path) -> None:
        with holder_process(folder) as holder:
            assert holder.first == "held"
            holder.process.terminate()
            assert holder.process.wait() == 128 + signal.SIGTERM
            assert os.listdir(folder) == []

    def test_a_forked_child_does_not_release(self, folder: Path) -> None:
        with holder_process(folder) as holder:
            assert holder.ask("fork") == "forked"
            assert record(folder).pid == holder.process.pid
            assert holder.ask("lost?") == "False"
            assert holder.ask("release") == "released"
            assert os.listdir(folder) == []

    def test_somebody_who_tidies_up_takes_nothing_away(self, folder: Path) -> None:
        with hold(folder) as lease:
            os.unlink(LeaseFile(str(folder), "x").path)
            until(lambda: os.path.exists(LeaseFile(str(folder), "x").path))
            assert not lease.is_lost
        assert os.listdir(folder) == []

    def test_a_garbled_record_is_mended(self, folder: Path) -> None:
        with hold(folder) as lease:
            (folder / "x.lease").write_bytes(b"\xff")
            until(lambda: (folder / "x.lease").read_bytes() != b"\xff")
            assert record(folder).pid == os.getpid() and not lease.is_lost

    def test_what_is_not_plainly_ours_is_not_removed(self, folder: Path) -> None:
        lease = try_hold(str(folder), "x", "testing", replace(FAST, beat_s=60.0))
        assert lease is not None
        (folder / "x.lease").write_bytes(b"\xff")
        lease.release()
        assert os.listdir(folder) == ["x.lease"]

    def test_a_folder_that_is_gone_is_no_reason_to_stop(self, folder: Path) -> None:
        with hold(folder) as lease:
            shutil.rmtree(folder)
            time.sleep(0.25)
            assert not lease.is_lost
            folder.mkdir()
            until(lambda: os.path.exists(folder / "x.lease"))


class TestManyWait:
    """What 32 processes that want the same see."""

    def test_of_32_one_works_and_all_have_it(self, folder: Path) -> None:
        seen = run_crowd(folder, 32, "once")
        assert seen == {"held with 1": 1, "waited": 31}
        assert os.listdir(folder) == []

    def test_of_32_who_all_must_each_gets_its_turn_alone(self, folder: Path) -> None:
        assert run_crowd(folder, 32, "each") == {"held with 1": 32}
        assert os.listdir(folder) == []

    @pytest.mark.parametrize("lie", LIES)
    def test_it_is_one_at_a_time_where_flock_lies(self, folder: Path, tmp_path: Path, lie: str) -> None:
        assert run_crowd(folder, 8, "each", env=build_shim(tmp_path, lie)) == {"held with 1": 8}
        assert os.listdir(folder) == []

    def test_with_slots_that_many_work_at_once(self, folder: Path) -> None:
        seen = run_crowd(folder, 12, "together", names="slot-0,slot-1,slot-2")
        assert seen.total() == 12 and set(seen) <= {"held with 1", "held with 2", "held with 3"}
        assert set(seen) - {"held with 1"}

    def test_of_many_who_find_it_dead_one_takes_it_over(self, folder: Path) -> None:
        """Nothing but silence tells them, and it tells all at the same time."""
        LeaseFile(str(folder), "x").create(from_elsewhere(folder))
        assert run_crowd(folder, 12, "each", dead_after_s=2.0) == {"held with 1": 12}
        assert os.listdir(folder) == []

    def test_slots_are_taken_in_order_and_any_will_do(self, folder: Path) -> None:
        names = ("a", "b", "c")
        with wait(folder, names=names) as first, wait(folder, names=names) as second:
            assert (first.name, second.name) == ("a", "b")
            first.release()
            with wait(folder, names=names) as third:
                assert third.name == "a"

    def test_it_is_handed_on_at_the_next_look(self, folder: Path) -> None:
        held, looks = hold(folder), iter(range(5))

        def is_done() -> bool:
            if next(looks) == 3:
                held.release()
            return False

        lease = wait_hold(str(folder), ["x"], "testing", SLOW, is_done=is_done, tell=lambda _: None)
        assert released(lease)
        assert list(looks) == [], "the last one was when it was held"

    def test_who_waits_for_what_is_there_gets_no_lease(self, folder: Path) -> None:
        told: list[Holder] = []
        with hold(folder) as lease:
            lease.update(3, 10)
            until(lambda: record(folder).done_bytes == 3)
            found = wait_hold(str(folder), ["x"], "testing", FAST, is_done=lambda: len(told) > 1, tell=told.append)
        assert found is None
        assert {(holder.pid, holder.done_bytes, holder.total_bytes) for holder in told} == {(os.getpid(), 3, 10)}

    def test_what_its_last_holder_finished_is_not_done_again(self, folder: Path) -> None:
        answers = iter([False, True])
        assert wait_hold(str(folder), ["x"], "t", FAST, is_done=lambda: next(answers), tell=lambda _: None) is None
        assert os.listdir(folder) == []

    def test_an_interrupt_while_it_asks_leaves_nothing(self, folder: Path) -> None:
        def answers() -> Iterator[bool]:
            yield False
            raise KeyboardInterrupt

        asked = answers()
        with pytest.raises(KeyboardInterrupt):
            wait_hold(str(folder), ["x"], "t", FAST, is_done=lambda: next(asked), tell=lambda _: None)
        assert os.listdir(folder) == []

    def test_of_several_holders_the_nearest_is_told(self, folder: Path) -> None:
        told: list[Holder] = []
        for name, done_bytes, total_bytes in (("a", 5, 0), ("b", 90, 100), ("c", 500, 1000)):
            holder = from_elsewhere(folder, done_bytes=done_bytes, total_bytes=total_bytes)
            LeaseFile(str(folder), name).create(holder)
        wait_hold(str(folder), ["a", "b", "c"], "t", FAST, is_done=lambda: bool(told), tell=told.append)
        assert told[0].done_bytes == 90


class TestHoldersDie:
    """Death is noticed, at once or soon, and only death."""

    def test_on_one_machine_it_is_noticed_at_once(self, folder: Path) -> None:
        with holder_process(folder) as holder:
            assert holder.first == "held"
            holder.process.kill()
            holder.process.wait()
            assert os.listdir(folder) != []
            with get_at_once(folder):
                assert list_settled(folder) == ["lease", "lock"]
        assert os.listdir(folder) == []

    def test_one_who_tries_notices_too(self, folder: Path) -> None:
        with holder_process(folder) as holder:
            assert try_hold(str(folder), "x", "testing", FAST) is None
            holder.process.kill()
            holder.process.wait()
            assert released(try_hold(str(folder), "x", "testing", FAST))

    def test_one_who_could_not_take_its_record_away_is_noticed_at_once(self, folder: Path) -> None:
        lease = hold(folder)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            lease.release()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        get_at_once(folder).release()
        assert os.listdir(folder) == []

    @pytest.mark.parametrize("lie", LIES)
    def test_where_flock_lies_silence_tells(self, folder: Path, tmp_path: Path, lie: str) -> None:
        env = build_shim(tmp_path, lie)
        with holder_process(folder, env=env) as holder:
            assert holder.first == "held"
            with holder_process(folder, env=env) as other:
                assert other.first == "none"
            holder.process.kill()
            holder.process.wait()
            with holder_process(folder, env=env) as other:
                assert other.first == "none"  # nothing proves it yet
            with Stopwatch() as watch, timed() as seconds, wait(folder):
                pass
            assert FAST.dead_after_s <= seconds[0]
            assert watch.seconds < FAST.dead_after_s + 2.0

    def test_a_machine_is_believed_about_its_own_mount_only(self, folder: Path) -> None:
        """The lock is free, but it is one of another kernel, or of another mount of the same server."""
        here = {"boot_id": read_boot_id(), "device": os.stat(folder.parents[1]).st_dev}
        for strange in ({"boot_id": "another"}, {"boot_id": ""}, {"device": here["device"] + 1}):  # type: ignore[operator]
            holder = from_elsewhere(folder, **{**here, **strange})
            (folder / f"x.{holder.id}.lock").touch()
            with LeaseFile(str(folder), "x").proof_of_death(holder) as is_proven:
                assert not is_proven
        holder = from_elsewhere(folder, **here)
        (folder / f"x.{holder.id}.lock").touch()
        with LeaseFile(str(folder), "x").proof_of_death(holder) as is_proven:
            assert is_proven
            with LeaseFile(str(folder), "x").proof_of_death(holder) as is_proven_twice:
                assert not is_proven_twice

    def test_a_holder_that_was_stopped_learns_that_it_is_none_any_more(self, folder: Path) -> None:
        with holder_process(folder) as holder:
            assert holder.ask("lost?") == "False"
            holder.process.send_signal(signal.SIGSTOP)
            with timed() as seconds:
                lease = wait(folder)
            assert FAST.dead_after_s <= seconds[0]
            with lease:
                holder.process.send_signal(signal.SIGCONT)
                until(lambda: holder.ask("lost?") == "True")
                assert holder.ask("release") == "released"
                time.sleep(0.3)
                assert record(folder).pid == os.getpid()
                assert not lease.is_lost
            assert os.listdir(folder) == []

    def test_the_end_of_one_who_was_taken_for_dead_says_nothing_of_the_next(self, folder: Path) -> None:
        with holder_process(folder) as holder:
            assert holder.first == "held"
            holder.process.send_signal(signal.SIGSTOP)
            with wait(folder):
                holder.process.kill()
                holder.process.wait()
                assert try_hold(str(folder), "x", "testing", FAST) is None

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 10_000, b'{"id":1}', b"\0" * 4096], ids=range(5))
    def test_a_malformed_record_is_dead_after_the_same_time(self, folder: Path, content: bytes) -> None:
        folder.mkdir(parents=True)
        (folder / "x.lease").write_bytes(content)
        with timed() as seconds, wait(folder, replace(FAST, dead_after_s=0.5)):
            assert record(folder).pid == os.getpid()
        assert 0.5 <= seconds[0] < 20.0

    def test_a_fifo_does_not_hang(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        os.mkfifo(folder / "x.lease")
        assert released(wait(folder, replace(FAST, dead_after_s=0.2)))

    def test_a_taker_leaves_the_one_who_was_quicker(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another's record comes over ours before it has settled."""
        file = LeaseFile(str(folder), "x")
        file.create(from_elsewhere(folder))
        other = from_elsewhere(folder)
        times = replace(FAST, dead_after_s=0.1)
        waiter = waiting._Slot(file, "testing", times)
        assert waiter.attempt() is None
        time.sleep(0.15)
        monkeypatch.setattr(time, "sleep", lambda _: file.replace(other))
        assert waiter.attempt() is None
        assert record(folder) == other
        assert os.listdir(folder) == ["x.lease"]

    def test_what_killed_takers_left_is_swept_by_the_next(self, folder: Path) -> None:
        LeaseFile(str(folder), "x").create(from_elsewhere(folder))
        mine = [f"x.{'0' * 32}.lock", f"x.{'1' * 32}.new"]
        others = [f"x.y.{'0' * 32}.lock", "x.lock", f"xx.{'0' * 32}.new"]
        for name in mine + others:
            (folder / name).touch()
        with wait(folder, replace(FAST, dead_after_s=0.1)):
            assert not set(mine) & set(os.listdir(folder))
        assert sorted(os.listdir(folder)) == sorted(others)


class TestNothingMoves:
    """A wait ends when nothing moves, and goes on for as long as something does."""

    def test_a_holder_that_lives_and_gets_nowhere_is_named(self, folder: Path) -> None:
        with holder_process(folder) as holder:
            holder.tell("progress 3000 10000")
            until(lambda: record(folder).done_bytes == 3000)
            with Stopwatch() as watch, timed() as seconds, pytest.raises(LockTimeoutError) as caught:
                wait(folder, replace(FAST, stuck_after_s=0.6))
            assert seconds[0] >= 0.6
            assert watch.seconds < 3.0
            said = str(caught.value)
            assert f"pid {holder.process.pid} on {os.uname().nodename}" in said
            assert "3,000 of 10,000 bytes" in said and "bringing org/name" in said and "0.6 s" in said
            assert caught.value.path == str(folder / "x.lease")

    def test_a_holder_that_gets_on_is_waited_for(self, folder: Path) -> None:
        held, looks = hold(folder), iter(range(26))

        def is_done() -> bool:
            if (look := next(looks)) < 24:
                self._move(held, folder, look)
            elif look == 24:
                held.release()
            return False

        with timed() as seconds:
            times = replace(FAST, stuck_after_s=0.6)
            lease = wait_hold(str(folder), ["x"], "t", times, is_done=is_done, tell=lambda _: None)
        assert released(lease)
        assert seconds[0] > 1.0

    def test_one_slot_that_moves_is_enough_to_wait_for(self, folder: Path) -> None:
        with hold(folder, "a") as still, hold(folder, "b") as moving:
            still.update(1, 10)
            looks = iter(range(40))

            def is_done() -> bool:
                self._move(moving, folder, look := next(looks))
                return look == 39

            times = replace(FAST, stuck_after_s=0.6)
            names = ["a", "b"]
            assert wait_hold(str(folder), names, "t", times, is_done=is_done, tell=lambda _: None) is None

    def _move(self, lease: Lease, folder: Path, done_bytes: int) -> None:
        """It has told that it is so far, however late its thread is on a machine that is busy."""
        lease.update(done_bytes, 100)
        until(lambda: record(folder, lease.name).done_bytes == done_bytes)


class TestSight:
    """The arithmetic of watching."""

    def test_a_beat_ends_the_silence_and_progress_the_standstill(self, tmp_path: Path) -> None:
        holder = from_elsewhere(tmp_path)
        sight = Sight(holder).then(holder, 3.0)
        assert (sight.silent_s, sight.still_s) == (3.0, 3.0)
        sight = sight.then(replace(holder, counter=1), 2.0)
        assert (sight.silent_s, sight.still_s) == (0.0, 5.0)
        sight = sight.then(replace(holder, counter=2, done_bytes=9), 2.0)
        assert (sight.silent_s, sight.still_s) == (0.0, 0.0)

    def test_one_who_waits_in_turn_moves_as_what_it_waits_for_does(self, tmp_path: Path) -> None:
        holder = replace(from_elsewhere(tmp_path), what="waiting for pid 7 on b (copying; 1 bytes done)")
        later = replace(holder, counter=1, what="waiting for pid 7 on b (copying; 2 bytes done)")
        assert Sight(holder, still_s=200.0).then(later, 1.0).still_s == 0.0

    def test_another_holder_begins_anew(self, tmp_path: Path) -> None:
        sight = Sight(from_elsewhere(tmp_path), silent_s=7.0, still_s=200.0).then(from_elsewhere(tmp_path), 1.0)
        assert (sight.silent_s, sight.still_s) == (0.0, 0.0)

    def test_a_malformed_record_is_silent_as_long_as_it_is_malformed(self, tmp_path: Path) -> None:
        sight = Sight(None).then(None, 2.0).then(None, 2.0)
        assert (sight.silent_s, sight.still_s) == (4.0, 0.0)
        assert sight.then(from_elsewhere(tmp_path), 1.0).silent_s == 0.0

    def test_a_waiter_that_slept_has_seen_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine that was asleep finds all its holders silent, and they are merely as sleepy as it is."""
        file = LeaseFile(str(folder), "x")
        file.create(from_elsewhere(folder))
        waiter = waiting._Slot(file, "testing", FAST)
        assert waiter.attempt() is None
        now_s = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now_s + 1e6)
        assert waiter.attempt() is None
        assert waiter.sight is not None and waiter.sight.silent_s <= 2 * FAST.beat_s


class TestTheFolder:
    """Where leases cannot be written, it is said whose fault it is."""

    def test_a_folder_of_another_user(self, tmp_path: Path) -> None:
        if os.geteuid():
            pytest.skip("only root can become another user")
        tier = os.path.join("/tmp", f"fastload-lease-{os.getpid()}")
        place = lease_folder(tier)
        os.makedirs(place, 0o755)
        try:
            with holder_process(tmp_path / place, "65534") as holder:
                said = holder.first
        finally:
            shutil.rmtree(tier)
        assert '"NotWritableError"' in said
        assert "uid 65534" in said and "uid 0" in said and "0755" in said and "chown" in said

    @pytest.mark.parametrize(
        ("options", "kind"), [("ro", "NotWritableError"), ("nr_inodes=2", "NoSpaceError"), ("size=4k", "")]
    )
    def test_a_mount_that_takes_nothing(self, tmp_path: Path, options: str, kind: str) -> None:
        if os.geteuid() or shutil.which("unshare") is None:
            pytest.skip("only root can mount")
        mount = f'mount -t tmpfs -o {options} none {tmp_path} && exec "$@"'
        with holder_process(tmp_path, prefix=("unshare", "--mount", "sh", "-c", mount, "sh")) as holder:
            assert (f'"{kind}"' in holder.first) if kind else (holder.first == "held")

    def test_a_file_where_the_folder_should_be(self, folder: Path) -> None:
        folder.parent.parent.mkdir(exist_ok=True)
        folder.parent.touch()
        with pytest.raises(Exception, match="cannot be written") as caught:
            hold(folder)
        assert not isinstance(caught.value, NotWritableError)

    @pytest.mark.parametrize("step", ["write", "close", "fchmod"])
    def test_a_mount_that_is_full_at_any_step(self, folder: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Network mounts say so at the close; some know no modes, which is nobody's business."""
        real = getattr(os, step)

        def refuse(fd: int, *more: object) -> object:
            if not os.readlink(f"/proc/self/fd/{fd}").endswith(".lease"):
                return real(fd, *more)
            if step == "close":
                real(fd)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, step, refuse)
        if step == "fchmod":
            hold(folder).release()
        else:
            with pytest.raises(NoSpaceError):
                hold(folder)
        monkeypatch.undo()
        assert os.listdir(folder) == []

    @pytest.mark.parametrize("step", ["open", "read"])
    def test_a_record_that_the_server_replaced_meanwhile(
        self, folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> object:
            raise OSError(errno.ESTALE, "Stale file handle")

        file = LeaseFile(str(folder), "x")
        file.create(from_elsewhere(folder))
        with monkeypatch.context() as patch:
            patch.setattr(os, step, refuse)
            assert file.read() is None

    def test_a_record_can_be_read_by_others_whatever_the_umask(self, folder: Path) -> None:
        before = os.umask(0o077)
        try:
            with hold(folder):
                assert os.stat(folder / "x.lease").st_mode & 0o777 == 0o644
        finally:
            os.umask(before)
