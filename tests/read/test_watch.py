"""Whether an open file is still what it was: asked briefly where that takes no time, closely where it differs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from c_library import OnFileSystem
from fastload._read import kernel, watch
from fastload._read.kernel import look_briefly
from fastload._read.watch import Watch
from fastload.errors import IntegrityError
from shard_files import write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastload._format.checkpoint import Shard


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return write_shard(tmp_path / "model.safetensors")


@pytest.fixture
def descriptor(shard: Shard) -> Iterator[int]:
    found = os.open(shard.path, os.O_RDONLY)
    yield found
    os.close(found)


def grow(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def shrink(path: str) -> None:
    os.truncate(path, 10)


def rewrite(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"\1")


def touch(path: str) -> None:
    os.utime(path)


@pytest.mark.parametrize("brief", [True, False])
@pytest.mark.parametrize("change", [grow, shrink, rewrite, touch])
def test_a_change_is_noticed(
    shard: Shard, descriptor: int, change: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, *, brief: bool
) -> None:
    if not brief:
        monkeypatch.setattr(kernel, "_libc", OnFileSystem(0x6969))  # of which a server is asked
    watched = Watch(shard, descriptor)
    watched.check(0)
    change(shard.path)
    with pytest.raises(IntegrityError):
        watched.check(7)


def test_what_is_removed_stays_whole(shard: Shard, descriptor: int) -> None:
    watched = Watch(shard, descriptor)
    os.unlink(shard.path)
    watched.check(0)


def test_what_had_changed_before_it_was_opened_is_noticed(shard: Shard) -> None:
    touch(shard.path)
    descriptor = os.open(shard.path, os.O_RDONLY)
    try:
        with pytest.raises(IntegrityError):
            Watch(shard, descriptor).check(0)
    finally:
        os.close(descriptor)


def test_what_is_the_same_is_not_looked_at_closely(
    shard: Shard, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel.file_system(descriptor) not in kernel.LOCAL | kernel.MEMORY:
        pytest.skip("the temporary folder is on a file system of which nobody knows how long it takes to answer")
    watched = Watch(shard, descriptor)
    closely: list[int] = []
    monkeypatch.setattr(watch, "check_descriptor", lambda *_: closely.append(1))
    for offset in range(3):
        watched.check(offset)
    assert not closely
    os.link(shard.path, f"{shard.path}.too")  # a link more: the bytes are as they were, and that takes a closer look
    watched.check(0)
    assert closely


def test_a_kernel_that_does_not_say_is_asked_the_other_way(
    shard: Shard, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def statx(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(kernel, "_brief", Silent())
    assert look_briefly(descriptor) is None
    watched = Watch(shard, descriptor)
    watched.check(0)
    touch(shard.path)
    with pytest.raises(IntegrityError):
        watched.check(0)
