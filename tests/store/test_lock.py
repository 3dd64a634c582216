"""flock is believed where it refuses, and nowhere else."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from fastload._store.lease.lock import flock_is_truthful, hold_shared, open_lock, try_exclusive
from fastload._system_file import read_boot_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaks_nothing")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "manifest"
    path.write_bytes(b"{}")
    return path


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor."""
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def test_readers_share_and_an_evictor_waits_for_the_last(file: Path) -> None:
    with opened(file, os.O_RDWR) as evictor:
        with opened(file) as one, opened(file) as two:
            assert hold_shared(one) and hold_shared(two)
            assert not try_exclusive(evictor)
        assert try_exclusive(evictor)
        with opened(file) as late:
            assert not hold_shared(late)


def test_closing_another_descriptor_of_the_file_unlocks_nothing(file: Path) -> None:
    with opened(file) as reader, opened(file, os.O_RDWR) as evictor:
        assert hold_shared(reader)
        with opened(file):
            pass
        assert not try_exclusive(evictor)


def test_flock_tells_the_truth_here_and_is_left_as_it_was(file: Path) -> None:
    assert flock_is_truthful(str(file))
    with opened(file) as fd:
        assert try_exclusive(fd)
        assert flock_is_truthful(str(file))
        with opened(file) as other:
            assert not hold_shared(other)


def test_a_shared_lock_of_others_shows_it_too(file: Path) -> None:
    with opened(file) as fd:
        assert hold_shared(fd)
        assert flock_is_truthful(str(file))


def test_what_cannot_be_opened_proves_nothing(tmp_path: Path) -> None:
    assert not flock_is_truthful(str(tmp_path / "absent"))
    (tmp_path / "link").symlink_to("absent")
    assert not flock_is_truthful(str(tmp_path / "link"))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EIO])
def test_a_file_system_that_cannot_lock_is_no_error(file: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with opened(file) as fd:
        assert not hold_shared(fd)
        assert not try_exclusive(fd)
    assert not flock_is_truthful(str(file))


def test_a_lock_that_is_always_granted_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert not flock_is_truthful(str(file))


def test_a_file_that_may_only_be_read_is_opened_for_that(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse_writing(path: str, flags: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse_writing)
        fd = open_lock(str(file))
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    os.close(fd)


def test_the_boot_has_an_id() -> None:
    assert read_boot_id() == read_boot_id() != ""
