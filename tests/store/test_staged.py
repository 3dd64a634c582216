"""A file on its way in: what an earlier writer left counts once it is proven, and nobody writes to another's inode."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from fastload._read import filedigests
from fastload._store.admit.area import StagingArea
from fastload._store.admit.kept import KeptFile
from fastload._store.admit.takeover import open_staged
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastload._store.admit.staged import StagedFile

KEY = "a" * 64
BLOCKS = [bytes([number + 1]) * BLOCK_BYTES for number in range(3)] + [b"tail"]
SIZE = sum(map(len, BLOCKS))


@pytest.fixture
def area(tmp_path: Path) -> StagingArea:
    made = StagingArea(str(tmp_path / "ours"))
    made.make()
    return made


def put(staged: StagedFile, *indices: int) -> None:
    for index in indices:
        staged.put(index, memoryview(BLOCKS[index]))


def recalled(staged: StagedFile) -> list[int]:
    """The blocks that need not be read again; each is filled with what it was."""
    found = []
    for index, block in enumerate(BLOCKS):
        memory = memoryview(bytearray(len(block)))
        if staged.recall(index, memory):
            assert memory == block
            found.append(index)
    return found


def leave(area: StagingArea, *indices: int) -> tuple[str, int]:
    """An earlier writer's file with these blocks; its name and inode."""
    staged = open_staged(area, KEY, SIZE)
    put(staged, *indices)
    staged.close()
    (name,) = area.list_names(KEY)
    return name, os.stat(area.part(name)).st_ino


def edit_head(area: StagingArea, name: str, **changes: object) -> None:
    with open(area.journal(name), "rb") as file:
        head, _, rest = file.read().partition(b"\n")
    with open(area.journal(name), "wb") as file:
        file.write(json.dumps(json.loads(head) | changes).encode() + b"\n" + rest)


def finish(staged: StagedFile, area: StagingArea, target: Path) -> None:
    """Bring the rest, and publish."""
    for index, block in enumerate(BLOCKS):
        if not staged.recall(index, memoryview(bytearray(len(block)))):
            put(staged, index)
    done = staged.finish("file")
    assert list(done.blocks) == [block_digest(block) for block in BLOCKS]
    staged.publish(str(target))
    assert target.read_bytes() == b"".join(BLOCKS)


def test_whoever_comes_next_goes_on_in_the_same_inode(area: StagingArea, tmp_path: Path) -> None:
    name, inode = leave(area, 0, 3)
    staged = open_staged(area, KEY, SIZE)
    assert os.fstat(staged._part.descriptor).st_ino == inode
    assert recalled(staged) == [0, 3]
    finish(staged, area, tmp_path / "blob")
    assert (tmp_path / "blob").stat().st_ino == inode
    assert not os.listdir(area.parts) and not os.listdir(area.journals)
    assert name


def test_blocks_in_any_order_make_the_same_file(area: StagingArea, tmp_path: Path) -> None:
    staged = open_staged(area, KEY, SIZE)
    put(staged, 3, 1, 2, 0)
    finish(staged, area, tmp_path / "blob")


def test_blocks_that_come_almost_in_order_need_not_be_read_back(
    area: StagingArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads bring two blocks each; whoever is early waits."""
    monkeypatch.setattr(filedigests, "_TURN_S", 30.0)
    staged = open_staged(area, KEY, SIZE, in_order=True)
    if not staged._part.is_past_cache:
        pytest.skip("the temporary folder's file system takes no direct writes")
    monkeypatch.setattr(staged._digests, "_read_back", None)
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(put, staged, 1, 2), threads.submit(put, staged, 0, 3)]:
            done.result(timeout=60)
    finish(staged, area, tmp_path / "blob")


def test_a_block_does_not_wait_for_one_that_never_comes(area: StagingArea, tmp_path: Path) -> None:
    staged = open_staged(area, KEY, SIZE, in_order=True)
    put(staged, 3, 2, 1)
    finish(staged, area, tmp_path / "blob")


def test_what_was_written_past_the_cache_is_gone_on_with(area: StagingArea, tmp_path: Path) -> None:
    staged = open_staged(area, KEY, SIZE, in_order=True)
    put(staged, 0, 1, 3)
    staged.close()
    staged = open_staged(area, KEY, SIZE, in_order=True)
    assert recalled(staged) == [0, 1, 3]
    finish(staged, area, tmp_path / "blob")


def test_a_part_file_that_was_damaged_is_not_believed(area: StagingArea, tmp_path: Path) -> None:
    name, _ = leave(area, 0, 1, 2)
    with open(area.part(name), "r+b") as part:
        part.seek(BLOCK_BYTES + 7)
        part.write(b"?")
    staged = open_staged(area, KEY, SIZE)
    assert recalled(staged) == [0, 2]
    finish(staged, area, tmp_path / "blob")


def test_a_part_file_that_was_cut_is_not_believed(area: StagingArea, tmp_path: Path) -> None:
    name, _ = leave(area, 0, 1, 2)
    os.truncate(area.part(name), BLOCK_BYTES + 1)
    staged = open_staged(area, KEY, SIZE)
    assert recalled(staged) == [0]
    finish(staged, area, tmp_path / "blob")


@pytest.mark.parametrize(
    "tail",
    [
        b"2 " + block_digest(BLOCKS[2]).encode()[:30],
        b"99999999999999999999 " + b"a" * 64 + b"\n",
        b"-1 " + b"a" * 64 + b"\n",
        b"77 " + b"a" * 64 + b"\n",
        b"\xff\xfe\x00\n\n \n2\n",
        b"2 " + b"\xff" * 64 + b"\n",
        "٢ ".encode() + b"a" * 64 + b"\n",
    ],
    ids=["torn", "huge", "negative", "beyond", "noise", "no-ascii", "other-digits"],
)
def test_a_torn_journal_or_a_garbled_one_loses_its_odd_lines_only(
    area: StagingArea, tmp_path: Path, tail: bytes
) -> None:
    name, _ = leave(area, 0, 1)
    with open(area.journal(name), "ab") as journal:
        journal.write(tail)
    staged = open_staged(area, KEY, SIZE)
    assert recalled(staged) == [0, 1]
    finish(staged, area, tmp_path / "blob")


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b"{", b'{"size": 1}\n', b"\xff" * 100])
def test_a_journal_without_its_head_says_nothing(area: StagingArea, tmp_path: Path, content: bytes) -> None:
    name, inode = leave(area, 0, 1)
    with open(area.journal(name), "wb") as journal:
        journal.write(content)
    staged = open_staged(area, KEY, SIZE)
    assert os.fstat(staged._part.descriptor).st_ino != inode
    assert recalled(staged) == []
    finish(staged, area, tmp_path / "blob")


def test_a_journal_that_lies_makes_no_block_of_something_else(area: StagingArea, tmp_path: Path) -> None:
    name, _ = leave(area, 0)
    with open(area.journal(name), "ab") as journal:
        journal.write(b"1 %s\n" % block_digest(BLOCKS[1]).encode())
    staged = open_staged(area, KEY, SIZE)
    assert recalled(staged) == [0]
    finish(staged, area, tmp_path / "blob")


@pytest.mark.parametrize("head", [{"boot_id": "another"}, {"device": 1}, {"boot_id": ""}])
def test_what_a_writer_left_who_may_live_is_copied_to_an_inode_of_our_own(
    area: StagingArea, tmp_path: Path, head: dict[str, object]
) -> None:
    name, inode = leave(area, 0, 2)
    edit_head(area, name, **head)
    before = os.stat(area.part(name)).st_mtime_ns
    staged = open_staged(area, KEY, SIZE)
    assert os.fstat(staged._part.descriptor).st_ino != inode
    assert recalled(staged) == [0, 2]
    finish(staged, area, tmp_path / "blob")
    status = os.stat(area.part(name))
    assert (status.st_ino, status.st_mtime_ns) == (inode, before)
    area.forget(KEY)
    assert not os.listdir(area.parts) and not os.listdir(area.journals)


def test_a_writer_that_lives_keeps_its_inode_and_both_succeed(area: StagingArea, tmp_path: Path) -> None:
    first = open_staged(area, KEY, SIZE)
    put(first, 0, 1)
    second = open_staged(area, KEY, SIZE)
    assert os.fstat(second._part.descriptor).st_ino != os.fstat(first._part.descriptor).st_ino
    assert recalled(second) == [0, 1]
    finish(second, area, tmp_path / "blob")
    area.forget(KEY)
    finish(first, area, tmp_path / "blob")
    assert not os.listdir(area.journals)


@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["link", "hard-link"])
@pytest.mark.parametrize("planted", ["part", "journal"])
def test_what_lies_elsewhere_too_is_neither_written_nor_published(
    area: StagingArea, tmp_path: Path, planted: str, plant: Callable[[str, str], None]
) -> None:
    name, _ = leave(area, 0, 1)
    there = getattr(area, planted)(name)
    precious = tmp_path / "precious"
    os.rename(there, precious)
    content = precious.read_bytes()
    plant(str(precious), there)
    staged = open_staged(area, KEY, SIZE)
    assert recalled(staged) == []
    finish(staged, area, tmp_path / "blob")
    area.forget(KEY)
    assert precious.read_bytes() == content
    assert not (tmp_path / "blob").is_symlink() and not (tmp_path / "blob").samefile(precious)
    assert not os.listdir(area.parts) and not os.listdir(area.journals)


@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["link", "hard-link"])
def test_what_took_the_place_of_a_file_that_was_written_gets_no_name(
    area: StagingArea, tmp_path: Path, plant: Callable[[str, str], None]
) -> None:
    staged = open_staged(area, KEY, SIZE)
    put(staged, *range(len(BLOCKS)))
    staged.finish("file")
    (name,) = area.list_names(KEY)
    os.unlink(area.part(name))
    (tmp_path / "precious").write_bytes(b"precious")
    plant(str(tmp_path / "precious"), area.part(name))
    with pytest.raises(StoreError, match="not the file that was written"):
        staged.publish(str(tmp_path / "blob"))
    staged.close()
    assert not os.path.lexists(tmp_path / "blob")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("theirs", ["part", "journal"])
def test_what_another_user_left_is_copied_and_not_written(area: StagingArea, tmp_path: Path, theirs: str) -> None:
    name, inode = leave(area, 0, 2)
    os.chown(getattr(area, theirs)(name), 65534, 65534)
    staged = open_staged(area, KEY, SIZE)
    assert os.fstat(staged._part.descriptor).st_ino != inode
    assert recalled(staged) == [0, 2]
    finish(staged, area, tmp_path / "blob")
    assert os.listdir(area.parts) == [name]


def test_where_the_server_says_whose_files_are_ours_are_told_by_a_new_one(
    area: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS with root_squash does: what root makes is not root's."""
    name, inode = leave(area, 0, 2)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(area.parts).st_uid + 1)
    staged = open_staged(area, KEY, SIZE)
    assert os.fstat(staged._part.descriptor).st_ino == inode
    staged.close()
    assert os.listdir(area.parts) == [name]


def test_another_size_is_other_content(area: StagingArea) -> None:
    leave(area, 0)
    staged = open_staged(area, KEY, SIZE + 1)
    assert recalled(staged) == []
    staged.close()


def test_room_that_nothing_was_put_into_is_given_back(area: StagingArea) -> None:
    staged = open_staged(area, KEY, SIZE)
    assert staged.missing_bytes == SIZE
    staged.reserve()
    assert staged.missing_bytes == 0
    staged.close()
    assert not os.listdir(area.parts) and not os.listdir(area.journals)


def test_what_has_something_in_it_waits_though_nobody_recalled_it(area: StagingArea) -> None:
    name, _ = leave(area, 0)
    open_staged(area, KEY, SIZE).close()
    assert area.list_names(KEY) == [name]


def test_a_thread_that_comes_late_does_not_write_to_another_file(area: StagingArea, tmp_path: Path) -> None:
    staged = open_staged(area, KEY, SIZE)
    put(staged, 0)
    staged.close()
    others = [(tmp_path / f"other{number}").open("w+b") for number in range(8)]

    def put_late() -> None:
        with pytest.raises(StoreError):
            put(staged, 1)

    late = threading.Thread(target=put_late)
    late.start()
    late.join()
    for other in others:
        assert os.fstat(other.fileno()).st_size == 0
        other.close()


def test_what_cannot_be_staged_leaves_nothing(area: StagingArea) -> None:
    os.rmdir(area.parts)
    with pytest.raises(StoreError):
        open_staged(area, KEY, SIZE)
    assert not os.listdir(area.journals)


def test_the_next_holder_sweeps_what_the_dead_one_was_about_to_rename(area: StagingArea) -> None:
    name, _ = leave(area, 0)
    for folder in (f"probe.{'0' * 16}", f"{'c' * 40}.{'1' * 16}", f"removed.{'c' * 40}.{'1' * 16}"):
        os.makedirs(os.path.join(area.parts, folder, "below"))
    for file in (f"{'c' * 40}.json.{'2' * 16}", f"{'d' * 64}.{'3' * 16}", f"main.{'4' * 16}", f"stamp.json.{'5' * 16}"):
        with open(os.path.join(area.parts, file), "wb"):
            pass
    area.sweep()
    assert sorted(os.listdir(area.parts)) == sorted([name, f"main.{'4' * 16}", f"removed.{'c' * 40}.{'1' * 16}"])


def test_of_a_journal_no_more_is_read_than_its_blocks_can_need(area: StagingArea, tmp_path: Path) -> None:
    """Whoever can write to a tier can leave millions of lines there."""
    name, _ = leave(area, 0, 1)
    with open(area.journal(name), "ab") as journal:
        journal.write(b"ab\n" * (4 << 20) + b"\n" * (4 << 20))
    tracemalloc.start()
    try:
        staged = open_staged(area, KEY, SIZE)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 256 << 10
    assert recalled(staged) == [0, 1]
    finish(staged, area, tmp_path / "blob")


def test_a_journal_with_every_block_twice_and_more_counts(area: StagingArea) -> None:
    """A block may be written again, where it was found wrong."""
    name, _ = leave(area, 0, 1, 2, 3)
    with open(area.journal(name), "rb+") as journal:
        head, *lines = journal.read().splitlines(keepends=True)
        journal.seek(0)
        journal.write(head + b"".join(b"%d %s\n" % (index, b"0" * 64) for index in (0, 1, 2, 3) * 2 + (10**10,)))
        journal.write(b"".join(lines))
    staged = open_staged(area, KEY, SIZE)
    assert recalled(staged) == [0, 1, 2, 3]
    staged.discard()


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_folder_among_what_is_forgotten_stays_and_nothing_fails(area: StagingArea, *, is_empty: bool) -> None:
    """What was published is whole, whatever somebody has put beside it."""
    name, _ = leave(area, 0)
    planted = [area.part(f"{KEY}.0"), area.journal(f"{KEY}.0")]
    for path in planted:
        os.mkdir(path)
        if not is_empty:
            os.mkdir(os.path.join(path, "x"))
    area.forget(KEY)
    assert area.list_names(KEY) == [f"{KEY}.0"]
    assert not os.path.exists(area.part(name))
    assert all(os.path.isdir(path) for path in planted)


def test_staged_files_that_cannot_be_listed_are_no_reason_to_fail(area: StagingArea) -> None:
    os.rmdir(area.journals)
    with open(area.journals, "w"):
        pass
    area.forget(KEY)


def test_a_folder_in_the_place_of_a_blob_is_named_with_what_to_do(area: StagingArea, tmp_path: Path) -> None:
    (tmp_path / "blob").mkdir()
    staged = open_staged(area, KEY, SIZE)
    put(staged, 0, 1, 2, 3)
    with pytest.raises(StoreError, match=r"blob': a folder is there where a file belongs\. .*move it away"):
        staged.publish(str(tmp_path / "blob"))
    staged.close()


def test_a_file_that_is_there_already_is_let_go_of_while_others_still_put(tmp_path: Path) -> None:
    """Its number may mean another file a moment later."""
    kept, blocks = given(tmp_path)
    kept.put(1, blocks[1])
    assert kept.has_arrived(1)
    kept.discard()
    with pytest.raises(StoreError):
        kept.put(0, blocks[0])


def given(tmp_path: Path) -> tuple[KeptFile, list[memoryview]]:
    """A file of two blocks that is there already, and what it gave."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (2 * BLOCK_BYTES // 256))
    kept = KeptFile(str(path), 2 * BLOCK_BYTES)
    blocks = [memoryview(bytearray(BLOCK_BYTES)) for _ in range(2)]
    assert all(kept.give(index, [block]) for index, block in enumerate(blocks))
    return kept, blocks


def test_what_was_given_counts_once_and_nothing_else(tmp_path: Path) -> None:
    kept, blocks = given(tmp_path)
    kept.put(0, memoryview(bytes(BLOCK_BYTES)))
    assert not kept.has_arrived(0)
    for index in (1, 1, 0, 0):
        kept.put(index, blocks[index])
        assert kept.has_arrived(index)
    found = kept.finish("file")
    content = (tmp_path / "file").read_bytes()
    assert (found.size, found.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (tmp_path / "file").read_bytes() == content
    kept.close()


def test_what_cannot_be_read_back_of_it_is_said_in_our_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(BLOCK_BYTES))
    kept = KeptFile(str(path), BLOCK_BYTES)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(StoreError, match="file"):
        kept.recall(0, memoryview(bytearray(BLOCK_BYTES)))
    kept.close()
