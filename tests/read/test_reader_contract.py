"""One contract, every reader: the right bytes or an error that says why not, and no descriptor left behind."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from c_library import StatxSays
from fastload._plan.extent import build_extents
from fastload._plan.layout import round_up
from fastload._read.fallback import FallbackReader
from fastload._read.populate import PopulatingReader, map_file
from fastload._read.pread import BufferedReader, DirectReader
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import FormatError, IntegrityError, StoreError, UnsupportedError
from shard_files import DATA, aligned_memory, bare_shard, no_descriptor_left, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastload._format.checkpoint import Shard
    from fastload._plan.extent import Extent
    from fastload._read.reader import Reader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def shard(path: Path) -> Shard:
    return write_shard(path)


def extents_of(shard: Shard, extent_blocks: int = 1) -> list[Extent]:
    size = shard.header.file_bytes
    return list(build_extents(0, [(0, size)], file_bytes=size, extent_bytes=extent_blocks * BLOCK_BYTES))


def let_the_clock_tick() -> None:
    """Old kernels stamp files by a clock of 4 ms: a change within one tick cannot be seen by anyone."""
    time.sleep(0.02)


class ReaderContract(ABC):
    """What every reader promises."""

    @abstractmethod
    def open_reader(self, shard: Shard) -> Reader:
        """The reader under test."""

    def memory(self, shard: Shard, reader: Reader, offset: int, nbytes: int) -> memoryview:
        """Memory that the reader may fill, as a lane would give it."""
        return aligned_memory(round_up(nbytes, reader.alignment_bytes))

    @pytest.mark.parametrize("extent_blocks", [1, 2, 3])
    def test_it_fills_the_exact_bytes_of_every_extent(self, shard: Shard, path: Path, extent_blocks: int) -> None:
        reader, stored = self.open_reader(shard), path.read_bytes()
        for extent in extents_of(shard, extent_blocks):
            buffer = self.memory(shard, reader, extent.offset, extent.length)
            reader.read_into(extent.offset, [buffer])
            assert buffer[: extent.length] == stored[extent.offset : extent.end]
        reader.check_path()
        reader.close()

    def test_a_buffer_may_reach_past_the_end_of_the_file(self, shard: Shard, path: Path) -> None:
        reader, stored = self.open_reader(shard), path.read_bytes()
        last = extents_of(shard)[-1]
        assert last.length % 4096  # else this would not be a tail
        buffer = self.memory(shard, reader, last.offset, round_up(last.length, 4096))
        reader.read_into(last.offset, [buffer])
        assert buffer[: last.length] == stored[last.offset :]
        reader.close()

    def test_threads_may_read_at_once(self, shard: Shard, path: Path) -> None:
        reader, stored = self.open_reader(shard), path.read_bytes()

        def read(extent: Extent) -> bool:
            buffer = self.memory(shard, reader, extent.offset, extent.length)
            reader.read_into(extent.offset, [buffer])
            return buffer[: extent.length] == stored[extent.offset : extent.end]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, extents_of(shard) * 8))
        reader.close()

    def check_refused(self, shard: Shard, *, offset: int = 0) -> IntegrityError:
        """Read the block at ``offset``; the complaint must name the file and a place in that block, or all of it."""
        reader = self.open_reader(shard)
        length = min(BLOCK_BYTES, shard.header.file_bytes - offset)
        with pytest.raises(IntegrityError) as caught:
            reader.read_into(offset, [self.memory(shard, reader, offset, length)])
        reader.close()
        assert caught.value.path == shard.path
        assert not caught.value.offset or offset <= caught.value.offset <= offset + BLOCK_BYTES
        return caught.value

    @pytest.mark.parametrize("size", [0, 100, 4096, BLOCK_BYTES, BLOCK_BYTES + 100, 2 * BLOCK_BYTES + 4096])
    def test_a_file_that_shrank_is_refused(self, shard: Shard, size: int) -> None:
        os.truncate(shard.path, size)
        self.check_refused(shard, offset=size // BLOCK_BYTES * BLOCK_BYTES)

    def test_a_file_that_grew_is_refused(self, shard: Shard) -> None:
        with open(shard.path, "ab") as file:
            file.write(b"more")
        error = self.check_refused(shard, offset=2 * BLOCK_BYTES)
        assert f"{shard.identity.size + 4:,} bytes" in str(error)

    def test_another_file_of_that_name_is_refused(self, shard: Shard, tmp_path: Path) -> None:
        write_shard(tmp_path / "new", bytes(reversed(DATA)))
        os.rename(tmp_path / "new", shard.path)
        assert "another file" in str(self.check_refused(shard))

    def test_a_file_rewritten_in_place_is_refused(self, shard: Shard, path: Path) -> None:
        let_the_clock_tick()
        path.write_bytes(path.read_bytes())
        assert "changed" in str(self.check_refused(shard))

    def test_a_rewritten_file_whose_mtime_was_put_back_is_refused(self, shard: Shard, path: Path) -> None:
        let_the_clock_tick()
        status = path.stat()
        with open(path, "r+b") as file:
            file.write(b"\0\0\0")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.check_refused(shard)

    def test_a_file_that_changes_between_two_reads_is_refused_at_the_second(self, shard: Shard) -> None:
        reader = self.open_reader(shard)
        first, second, last = (self.memory(shard, reader, extent.offset, extent.length) for extent in extents_of(shard))
        reader.read_into(0, [first])
        os.truncate(shard.path, BLOCK_BYTES + 4096)
        with pytest.raises(IntegrityError, match="safetensors"):
            reader.read_into(BLOCK_BYTES, [second])
        with pytest.raises(IntegrityError, match="safetensors"):
            reader.read_into(2 * BLOCK_BYTES, [last])
        reader.close()

    def test_a_path_that_leads_elsewhere_at_the_end_is_refused(self, shard: Shard, tmp_path: Path) -> None:
        reader = self.open_reader(shard)
        write_shard(tmp_path / "new")
        os.rename(tmp_path / "new", shard.path)
        with pytest.raises(IntegrityError, match="another file of that name") as caught:
            reader.check_path()
        reader.close()
        assert caught.value.path == shard.path

    def test_a_file_that_is_removed_while_it_is_read_stays_whole(self, shard: Shard, path: Path) -> None:
        reader, stored = self.open_reader(shard), path.read_bytes()
        first, second, _ = (self.memory(shard, reader, extent.offset, extent.length) for extent in extents_of(shard))
        reader.read_into(0, [first])
        let_the_clock_tick()
        path.unlink()
        reader.read_into(BLOCK_BYTES, [second])
        assert second == stored[BLOCK_BYTES : 2 * BLOCK_BYTES]
        reader.check_path()
        reader.close()

    def test_closing_gives_every_descriptor_back(self, shard: Shard) -> None:
        with no_descriptor_left():
            reader = self.open_reader(shard)
            buffer = self.memory(shard, reader, 0, BLOCK_BYTES)
            reader.read_into(0, [buffer])
            reader.close()
            del buffer, reader
            gc.collect()

    @pytest.mark.parametrize("kind", ["folder", "fifo", "device", "loop", "dangling", "nothing"])
    def test_what_is_no_regular_file_is_refused_at_once(self, path: Path, kind: str) -> None:
        make_odd(path, kind)
        with no_descriptor_left(), pytest.raises(FormatError) as caught:
            self.open_reader(bare_shard(str(path)))
        assert caught.value.path == str(path)

    def test_a_file_that_became_a_fifo_does_not_hang(self, shard: Shard, path: Path) -> None:
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(FormatError, match="FIFO"):
            self.open_reader(shard)

    @pytest.mark.parametrize(
        ("code", "cure"), [(errno.EACCES, "read permission"), (errno.EMFILE, "ulimit -n"), (errno.EIO, "dmesg")]
    )
    def test_a_file_that_cannot_be_opened_is_a_store_error_that_names_the_cure(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch, code: int, cure: str
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", failing(code))
            with pytest.raises(StoreError, match=cure):
                self.open_reader(shard)


def make_odd(path: Path, kind: str) -> None:
    """Something at ``path`` that no checkpoint should hold."""
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "nothing":
        path.symlink_to({"device": "/dev/zero", "loop": str(path), "dangling": "nowhere"}[kind])


class AnyBuffersContract(ReaderContract):
    """What readers without alignment promise on top."""

    def test_several_buffers_are_filled_one_after_another(self, shard: Shard, path: Path) -> None:
        reader, stored = self.open_reader(shard), path.read_bytes()
        assert reader.alignment_bytes == 1
        whole = self.memory(shard, reader, 0, 100_000)
        reader.read_into(0, [whole[:1], whole[1:1], whole[1:50_000], whole[50_000:]])
        assert whole == stored[:100_000]
        reader.close()

    def test_a_fifo_that_takes_its_place_while_it_is_opened_does_not_hang(
        self, shard: Shard, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        status = path.stat()
        path.unlink()
        os.mkfifo(path)
        monkeypatch.setattr(os, "stat", lambda *_, **__: status)  # what was seen just before
        with no_descriptor_left(), pytest.raises(FormatError, match="FIFO"):
            self.open_reader(shard)


class PreadContract(ReaderContract):
    """What readers over ``preadv`` promise when the system misbehaves. Only the system call is replaced."""

    def read_all(self, shard: Shard) -> bytes:
        reader, found = self.open_reader(shard), b""
        for extent in extents_of(shard):
            buffer = self.memory(shard, reader, extent.offset, extent.length)
            reader.read_into(extent.offset, [buffer])
            found += buffer[: extent.length]
        reader.close()
        return found

    @pytest.mark.parametrize("most", [65_536, 1_000_000, 3_999_999])
    def test_short_reads_are_continued(
        self, shard: Shard, path: Path, monkeypatch: pytest.MonkeyPatch, most: int
    ) -> None:
        monkeypatch.setattr(os, "preadv", short_reads(lambda: most))
        assert self.read_all(shard) == path.read_bytes()

    def test_reads_that_stop_anywhere_are_continued(
        self, shard: Shard, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lengths = iter_lengths(4097, 2_000_000)
        monkeypatch.setattr(os, "preadv", short_reads(lambda: next(lengths)))
        assert self.read_all(shard) == path.read_bytes()

    def test_a_read_that_makes_no_progress_is_the_end_of_the_file(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "preadv", lambda *_: 0)
        assert "end of the file" in str(self.check_refused(shard, offset=BLOCK_BYTES))

    def test_the_offset_of_an_early_end_is_where_the_bytes_ceased(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lengths = iter([8192, 0])
        monkeypatch.setattr(os, "preadv", short_reads(lambda: next(lengths)))
        assert self.check_refused(shard, offset=BLOCK_BYTES).offset == BLOCK_BYTES + 8192

    @pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENODEV, errno.EACCES])
    def test_storage_that_fails_is_a_store_error_with_the_systems_words(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        monkeypatch.setattr(os, "preadv", failing(code))
        with no_descriptor_left():
            reader = self.open_reader(shard)
            with pytest.raises(StoreError) as caught:
                reader.read_into(0, [self.memory(shard, reader, 0, BLOCK_BYTES)])
            reader.close()
        assert caught.value.path == shard.path
        assert os.strerror(code) in caught.value.reason
        assert caught.value.hint


def failing(code: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def short_reads(most: Callable[[], int]) -> Callable[..., int]:
    """``preadv`` that reads at most so many bytes, and leaves rubbish where it claims to have written nothing."""
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        count = min(real(descriptor, buffers, offset, flags), most())
        left = count
        for buffer in buffers:
            kept = min(left, len(buffer))
            buffer[kept:] = b"\xdd" * (len(buffer) - kept)
            left -= kept
        return count

    return preadv


def iter_lengths(least: int, most: int) -> Iterator[int]:
    """Endless lengths in ``[least, most]`` without a pattern that alignment could hide in."""
    number = 12_345
    while True:
        number = number * 1_103_515_245 % (1 << 31)
        yield least + number % (most - least + 1)


class TestBufferedReader(PreadContract, AnyBuffersContract):
    """Through the page cache."""

    def open_reader(self, shard: Shard) -> Reader:
        return BufferedReader(shard)

    def test_reads_of_single_bytes_are_continued(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shard = write_shard(path, DATA[:5000])
        monkeypatch.setattr(os, "preadv", short_reads(lambda: 1))
        assert self.read_all(shard) == path.read_bytes()

    def test_more_buffers_than_one_call_takes_are_filled(self, shard: Shard, path: Path) -> None:
        reader, whole = self.open_reader(shard), aligned_memory(30_000)
        reader.read_into(0, [whole[at : at + 10] for at in range(0, 30_000, 10)])
        assert whole == path.read_bytes()[:30_000]
        reader.close()

    def test_buffers_behind_the_end_are_left_alone(self, shard: Shard) -> None:
        reader, behind = self.open_reader(shard), aligned_memory(10)
        reader.read_into(shard.identity.size - 1, [aligned_memory(3), behind])
        assert bytes(behind) == b"\xee" * 10
        reader.close()

    def test_a_refusal_is_a_store_error_since_there_is_nothing_to_fall_back_to(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader = self.open_reader(shard)
        monkeypatch.setattr(os, "preadv", failing(errno.EINVAL))
        with pytest.raises(StoreError, match="Invalid argument"):
            reader.read_into(0, [aligned_memory(4096)])
        reader.close()


def open_direct(shard: Shard) -> DirectReader:
    try:
        return DirectReader(shard)
    except UnsupportedError:
        pytest.skip("the temporary folder's file system takes no O_DIRECT")


class TestDirectReader(PreadContract):
    """Past the page cache."""

    def open_reader(self, shard: Shard) -> Reader:
        return open_direct(shard)

    @pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
    def test_a_file_system_that_refuses_at_read_is_unsupported(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        reader = self.open_reader(shard)
        monkeypatch.setattr(os, "preadv", failing(code))
        with pytest.raises(UnsupportedError, match="O_DIRECT"):
            reader.read_into(0, [aligned_memory(4096)])
        reader.close()

    def test_reads_that_never_fill_a_sector_are_unsupported(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next read must begin aligned, so it would get the same bytes for ever; and the file has not ended."""
        reader = self.open_reader(shard)
        monkeypatch.setattr(os, "preadv", short_reads(lambda: 512))
        with pytest.raises(UnsupportedError):
            reader.read_into(0, [aligned_memory(BLOCK_BYTES)])
        reader.close()

    def test_a_file_system_that_refuses_at_open_is_unsupported(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "open", refuse_direct())
        with no_descriptor_left(), pytest.raises(UnsupportedError, match="opened with O_DIRECT"):
            DirectReader(shard)

    def test_a_real_file_system_that_refuses_at_open_is_unsupported(self) -> None:
        with no_descriptor_left(), pytest.raises(UnsupportedError, match="opened with O_DIRECT"):
            DirectReader(bare_shard("/proc/version"))

    def test_a_file_that_the_kernel_says_takes_no_direct_read_is_unsupported(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fastload._read.kernel._libc", StatxSays(memory=0, offset=0))
        with no_descriptor_left(), pytest.raises(UnsupportedError, match="read with O_DIRECT"):
            DirectReader(shard)


def refuse_direct() -> Callable[..., int]:
    """``open`` of a file system without O_DIRECT."""
    real = os.open

    def open_or_refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return real(path, flags, mode)

    return open_or_refuse


class TestFallbackOverDirect(PreadContract):
    """``direct`` that may fall back, where nothing is refused."""

    def open_reader(self, shard: Shard) -> Reader:
        return FallbackReader(open_direct(shard), shard)


class TestFallbackWhereDirectIsRefused(ReaderContract):
    """The same promises hold after the fall: the file is read through the page cache."""

    @pytest.fixture(autouse=True)
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "preadv", refuse_direct_reads())

    def open_reader(self, shard: Shard) -> Reader:
        return FallbackReader(open_direct(shard), shard)

    def test_the_name_says_who_serves(self, shard: Shard) -> None:
        reader = self.open_reader(shard)
        assert reader.name == "direct"
        reader.read_into(0, [aligned_memory(BLOCK_BYTES)])
        assert reader.name == "buffered"
        reader.close()

    def test_threads_refused_at_once_open_one_other_reader(
        self, shard: Shard, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored, refused = path.read_bytes(), threading.Barrier(4)
        refuse_or_read = os.preadv

        def preadv(*arguments: Any) -> int:
            try:
                return refuse_or_read(*arguments)
            except OSError:
                refused.wait(10)  # until all have been refused, so that none finds the way already cleared
                raise

        def read(extent: Extent) -> bool:
            buffer = aligned_memory(BLOCK_BYTES)
            reader.read_into(extent.offset, [buffer])
            return buffer[: extent.length] == stored[extent.offset : extent.end]

        monkeypatch.setattr(os, "preadv", preadv)
        with no_descriptor_left():
            reader = self.open_reader(shard)
            with ThreadPoolExecutor(4) as pool:
                assert all(pool.map(read, extents_of(shard)[:1] * 4))
            reader.close()

    def test_a_file_that_vanished_before_the_fall_is_closed_once(self, shard: Shard) -> None:
        """Closing a descriptor twice closes whatever got its number in between."""
        reader = self.open_reader(shard)
        os.unlink(shard.path)
        for _ in range(2):
            with pytest.raises((FormatError, IntegrityError)):
                reader.read_into(0, [aligned_memory(BLOCK_BYTES)])
        reader.close()

    def test_what_storage_does_wrong_is_no_reason_to_fall_back(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader = self.open_reader(shard)
        monkeypatch.setattr(os, "preadv", failing(errno.EIO))
        with pytest.raises(StoreError):
            reader.read_into(0, [aligned_memory(BLOCK_BYTES)])
        assert reader.name == "direct"
        reader.close()


def refuse_direct_reads() -> Callable[..., int]:
    """``preadv`` of a file system that takes O_DIRECT at open and refuses it at read."""
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        if int(fields["flags"], 8) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, buffers, offset, flags)

    return preadv


class TestPopulatingReader(AnyBuffersContract):
    """``mmap``: its memory is the file's own."""

    def open_reader(self, shard: Shard) -> Reader:
        return PopulatingReader(shard)

    def memory(self, shard: Shard, reader: Reader, offset: int, nbytes: int) -> memoryview:
        return map_file(shard)[offset : offset + nbytes]
