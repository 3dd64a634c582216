"""Which reader ``auto`` takes for which file, and that what it takes really serves."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from c_library import OnFileSystem
from fastload._cpus import Cpus, count_cpus
from fastload._read import kernel
from fastload._read.choose import READERS, background_depth, choose_reader
from fastload._read.kernel import cached_fraction, file_system
from fastload._read.paced import paced
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import FormatError, StoreError
from shard_files import aligned_memory, bare_shard, no_descriptor_left, write_shard

if TYPE_CHECKING:
    from fastload._format.checkpoint import Shard

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return write_shard(tmp_path / "model.safetensors")


@pytest.fixture
def cold_shard(shard: Shard) -> Shard:
    """On a local disk, and not in memory."""
    descriptor = os.open(shard.path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        kind, cached = file_system(descriptor), cached_fraction(descriptor, shard.identity.size)
    finally:
        os.close(descriptor)
    if kind not in kernel.LOCAL or cached:
        pytest.skip(f"the temporary folder is on {kind}, where a file is not cold")
    return shard


def first_block(shard: Shard, wanted: str = "auto") -> tuple[str, bytes]:
    """Who really served, and what it read."""
    reader = choose_reader(shard, wanted).open(shard)
    memory = aligned_memory(BLOCK_BYTES)
    reader.read_into(0, [memory])
    reader.check_path()
    reader.close()
    return reader.name, bytes(memory)


def stored(shard: Shard) -> bytes:
    return Path(shard.path).read_bytes()[:BLOCK_BYTES]


@pytest.mark.parametrize("name", ["direct", "buffered", "mmap"])
def test_a_reader_asked_for_by_name_is_taken(shard: Shard, name: str) -> None:
    choice = choose_reader(shard, name)
    assert (choice.name, choice.reason) == (name, "asked for by name")
    assert choice.depth >= 1
    assert name in READERS


def test_a_warm_file_is_read_through_the_cache(shard: Shard) -> None:
    choice = choose_reader(shard, "auto")
    assert choice.name == "buffered"
    assert "100% of it is in the page cache" in choice.reason or "is memory" in choice.reason
    assert first_block(shard) == ("buffered", stored(shard))


@pytest.mark.parametrize(("in_memory", "reader"), [(0.4, "direct"), (0.6, "buffered")])
def test_half_of_a_file_in_memory_makes_it_a_warm_one(cold_shard: Shard, in_memory: float, reader: str) -> None:
    with open(cold_shard.path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # and nothing behind it
        file.read(int(cold_shard.identity.size * in_memory))
    assert choose_reader(cold_shard, "auto").name == reader


def test_a_cold_file_on_a_local_disk_is_read_past_the_cache(cold_shard: Shard) -> None:
    choice = choose_reader(cold_shard, "auto")
    assert choice.name == "direct"
    assert "0% cached" in choice.reason
    assert first_block(cold_shard) == ("direct", stored(cold_shard))


def test_reading_past_the_cache_leaves_the_cache_as_it_was(cold_shard: Shard) -> None:
    first_block(cold_shard)
    descriptor = os.open(cold_shard.path, os.O_RDONLY)
    try:
        assert cached_fraction(descriptor, cold_shard.identity.size) < 0.1
    finally:
        os.close(descriptor)


def test_a_file_in_memory_is_read_through_the_cache(tmp_path: Path) -> None:
    if not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip("no /dev/shm to write to")
    folder = SHARED_MEMORY / f"fastload-test-{os.getpid()}"
    folder.mkdir()
    try:
        shard = write_shard(folder / "model.safetensors")
        choice = choose_reader(shard, "auto")
        assert (choice.name, choice.reason) == ("buffered", "tmpfs is memory")
        assert first_block(shard) == ("buffered", stored(shard))
    finally:
        shutil.rmtree(folder)


def test_without_cachestat_and_statx_a_cold_file_is_still_read_past_the_cache(
    cold_shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_libc", OnFileSystem(0xEF53))
    assert first_block(cold_shard) == ("direct", stored(cold_shard))


@pytest.mark.parametrize(
    ("kind", "reason"), [(0x6969, "nfs is a network file system"), (0x2FC12FC1, "file system zfs"), (0x1234, "0x1234")]
)
def test_other_file_systems_are_read_through_the_cache(
    cold_shard: Shard, monkeypatch: pytest.MonkeyPatch, kind: int, reason: str
) -> None:
    monkeypatch.setattr(kernel, "_libc", OnFileSystem(kind))
    choice = choose_reader(cold_shard, "auto")
    assert choice.name == "buffered"
    assert reason in choice.reason


def test_a_network_wants_more_reads_in_flight_than_a_disk(cold_shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = choose_reader(cold_shard, "auto")
    monkeypatch.setattr(kernel, "_libc", OnFileSystem(0x6969))
    assert choose_reader(cold_shard, "auto").depth > disk.depth


def test_a_refusal_at_open_falls_back_for_this_file(cold_shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def open_buffered_only(path: str, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", open_buffered_only)
    with no_descriptor_left():
        assert first_block(cold_shard) == ("buffered", stored(cold_shard))


def test_a_refusal_at_read_falls_back_for_this_file(cold_shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    refusals = iter([True])

    def refuse_once(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if not flags and next(refusals, False):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", refuse_once)
    with no_descriptor_left():
        assert first_block(cold_shard) == ("buffered", stored(cold_shard))


_ON_OVERLAY_OVER_RAMFS = """
set -e
mount -t ramfs ramfs "$1/ramfs" 2>/dev/null || exit 77
cp "$1/model.safetensors" "$1/ramfs/"
mount -t overlay overlay -o "lowerdir=$1/ramfs:$1/empty" "$1/overlay" 2>/dev/null || exit 77
exec "$2" -c '
import mmap, sys
from fastload._format.checkpoint import Shard
from fastload._read.choose import background_depth, choose_reader
from fastload._read.head import read_header
from fastload.errors import UnsupportedError
shard = Shard("m", sys.argv[1], *read_header(sys.argv[1]))
choice = choose_reader(shard, "auto")
try:
    choose_reader(shard, "direct").open(shard)
except UnsupportedError as error:
    by_name = type(error).__name__
reader = choice.open(shard)
memory = memoryview(mmap.mmap(-1, 1 << 22))
reader.read_into(0, [memory])
assert memory == open(sys.argv[1], "rb").read()[: 1 << 22]
print(choice.name, reader.name, by_name)
' "$1/overlay/model.safetensors"
"""


def test_a_real_file_system_that_refuses_direct_reads_is_read_through_the_cache(shard: Shard) -> None:
    """An overlay over ramfs: it says nothing of alignment or what is cached, and refuses O_DIRECT at open."""
    folder = Path(shard.path).parent
    for name in ("ramfs", "empty", "overlay"):
        (folder / name).mkdir()
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) here")
    command = [unshare, "-m", "sh", "-c", _ON_OVERLAY_OVER_RAMFS, "sh", str(folder), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this user may not mount file systems")
    assert done.stdout.split() == ["buffered", "buffered", "UnsupportedError"], done.stderr


def test_what_is_no_file_is_refused_while_choosing(tmp_path: Path) -> None:
    with no_descriptor_left(), pytest.raises(FormatError):
        choose_reader(bare_shard(str(tmp_path)), "auto")


def test_storage_that_fails_while_choosing_is_a_store_error(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        choose_reader(shard, "auto")


@pytest.mark.parametrize(("cpus", "depth"), [(2, 4), (6, 6), (8, 8), (16, 16), (64, 16)])
def test_what_is_in_memory_is_copied_by_as_many_threads_as_there_are_cpus(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, cpus: int, depth: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr("fastload._cgroup._MEMBERSHIP", os.devnull)  # no quota, whatever this machine has
    assert choose_reader(shard, "auto").depth == depth


@pytest.mark.parametrize(("cpus", "depth"), [(Cpus(6), 6), (Cpus(64, 2.5), 3)])
def test_cpus_that_were_counted_are_not_counted_again(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, cpus: Cpus, depth: int
) -> None:
    """As for each of many files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert choose_reader(shard, "auto", cpus).depth == depth
    assert choose_reader(shard, "mmap", cpus).digesting_depth == depth


@pytest.mark.parametrize(("quota", "depth"), [("150000", 2), ("50000", 1), ("800000", 8)])
def test_what_is_in_memory_is_copied_by_no_more_threads_than_a_quota_has_cpus(
    shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, depth: int
) -> None:
    """They would use it up at once, and then all of them would stand still."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    folder = tmp_path / "cgroup"
    folder.mkdir()
    (folder / "cpu.max").write_text(f"{quota} 100000\n")
    (tmp_path / "membership").write_text(f"0::/../../..{folder}\n")
    monkeypatch.setattr("fastload._cgroup._MEMBERSHIP", str(tmp_path / "membership"))
    assert choose_reader(shard, "auto").depth == depth
    assert choose_reader(shard, "mmap").digesting_depth == depth


@pytest.mark.parametrize(("cpus", "depth"), [(1, 4), (4, 4), (8, 7), (16, 14), (64, 14)])
def test_who_has_others_read_keeps_a_cpu_of_eight(cpus: int, depth: int) -> None:
    assert background_depth(Cpus(cpus)) == depth


def test_a_mapped_file_that_is_on_the_disk_is_digested_by_threads_that_wait_for_it(cold_shard: Shard) -> None:
    assert choose_reader(cold_shard, "mmap").digesting_depth == 8
    Path(cold_shard.path).read_bytes()
    assert choose_reader(cold_shard, "mmap").digesting_depth == count_cpus().usable


def test_where_nothing_is_digested_nobody_asks_what_of_a_mapped_file_is_in_memory(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("fastload._read.choose.cached_fraction")
    assert choose_reader(shard, "mmap", digests=False).digesting_depth is None
    with pytest.raises(NameError):
        choose_reader(shard, "mmap")


def test_only_what_auto_finds_in_memory_of_this_machine_is_copied_ahead(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may hold up a read of all else: a disk, a server, whoever paces."""
    kind = mounted_kind(shard)
    choice = choose_reader(shard, "auto")
    assert choice.is_in_memory is (kind in kernel.LOCAL | kernel.MEMORY)
    assert not any(choose_reader(shard, name).is_in_memory for name in ("buffered", "direct", "mmap"))
    assert not paced(choice, lambda _: None).is_in_memory
    monkeypatch.setattr(kernel, "_libc", OnFileSystem(0x6969))
    assert not choose_reader(shard, "auto").is_in_memory


def mounted_kind(shard: Shard) -> str:
    descriptor = os.open(shard.path, os.O_RDONLY)
    try:
        return file_system(descriptor)
    finally:
        os.close(descriptor)


def test_a_cold_file_is_not_copied_ahead(cold_shard: Shard) -> None:
    assert not choose_reader(cold_shard, "auto").is_in_memory
