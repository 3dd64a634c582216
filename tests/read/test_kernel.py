"""What is asked of the kernel, on real files, and what is made of a kernel that does not answer."""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from c_library import Refusing, StatxSays
from fastload._read import kernel
from fastload._read.kernel import cached_fraction, direct_alignment, file_system, is_cached

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


@contextmanager
def opened(path: str | Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_libc", Refusing())


def cool(path: Path) -> None:
    """Put ``path`` out of the page cache, or skip where that does not work."""
    with opened(path) as descriptor:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if cached_fraction(descriptor, path.stat().st_size) > 0.1:
            pytest.skip("the temporary folder's file system keeps files in memory")


def written(path: Path, nbytes: int) -> Path:
    path.write_bytes(os.urandom(nbytes))
    return path


def mounted_as(path: str) -> str:
    """The file system of ``path`` by /proc/mounts, which has nothing to do with magic numbers."""
    with open("/proc/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1:3] for line in file]
    return max((place, kind) for place, kind in mounts if os.path.commonpath([place, path]) == place)[1]


@pytest.mark.parametrize("path", ["/dev/shm", "/", "."])
def test_file_systems_are_called_as_the_mount_table_calls_them(path: str) -> None:
    with opened(path) as descriptor:
        name = file_system(descriptor)
    if name.startswith("0x"):
        pytest.skip(f"{path} is on a file system without a name here")
    aliases = {"overlayfs": "overlay", "nfs": "nfs4", "fuse": "virtiofs"}
    assert mounted_as(os.path.realpath(path)).split(".")[0] in {name, aliases.get(name)}


def test_an_unknown_file_system_is_its_number() -> None:
    with opened("/proc/self/status") as descriptor:
        assert file_system(descriptor) == "0x9fa0"


@pytest.mark.usefixtures("refused")
def test_a_file_system_that_may_not_be_asked_is_unknown(tmp_path: Path) -> None:
    with opened(tmp_path) as descriptor:
        assert file_system(descriptor) == "unknown"


def test_no_kind_of_file_system_is_two_things() -> None:
    assert not kernel.NETWORK & kernel.MEMORY
    assert not kernel.LOCAL & (kernel.NETWORK | kernel.MEMORY)
    assert set(kernel._NAMES.values()) >= kernel.NETWORK | kernel.MEMORY | kernel.LOCAL


def test_the_alignment_the_kernel_asks_for_is_enough_to_read(tmp_path: Path) -> None:
    path = written(tmp_path / "file", 100_000)
    with opened(path) as descriptor:
        alignment = direct_alignment(descriptor)
    assert alignment == 0 or (alignment % 4096 == 0 and alignment.bit_count() == 1)


@pytest.mark.parametrize(
    ("memory", "offset", "expected"),
    [
        pytest.param(512, 512, 4096, id="never less than a page"),
        pytest.param(4, 16384, 16384, id="a device with large sectors"),
        pytest.param(65536, 512, 65536, id="memory asks for more"),
        pytest.param(0, 0, 0, id="no direct reads of this file"),
        pytest.param(0, 512, 0, id="no direct reads into memory"),
    ],
)
def test_the_alignment_serves_memory_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, offset: int, expected: int
) -> None:
    monkeypatch.setattr(kernel, "_libc", StatxSays(memory=memory, offset=offset))
    with opened(tmp_path) as descriptor:
        assert direct_alignment(descriptor) == expected


def test_a_kernel_that_does_not_say_gets_4096(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_libc", StatxSays(memory=0, offset=0, mask=0x7FF))
    with opened(tmp_path) as descriptor:
        assert direct_alignment(descriptor) == 4096


@pytest.mark.usefixtures("refused")
def test_a_kernel_that_may_not_say_gets_4096(tmp_path: Path) -> None:
    with opened(tmp_path) as descriptor:
        assert direct_alignment(descriptor) == 4096


def test_an_empty_file_is_all_in_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "file", 0)
    with opened(path) as descriptor:
        assert cached_fraction(descriptor, 0) == 1.0


def test_a_file_just_written_is_in_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "file", 8 * MIB + 5)
    with opened(path) as descriptor:
        assert cached_fraction(descriptor, path.stat().st_size) == 1.0


def test_half_a_file_in_memory_is_a_half(tmp_path: Path) -> None:
    path = written(tmp_path / "file", 8 * MIB)
    cool(path)
    with opened(path) as descriptor:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        os.pread(descriptor, 4 * MIB, 0)
        assert 0.45 < cached_fraction(descriptor, 8 * MIB) < 0.55


@pytest.mark.parametrize("cached_mib", [0, 1, 32, 128])
def test_of_large_files_samples_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached_mib: int) -> None:
    path = written(tmp_path / "file", 128 * MIB + 12345)
    cool(path)
    counted: list[int] = []
    count = kernel.count_cached_pages

    def noting(descriptor: int, offset: int, length: int) -> int | None:
        counted.append(length)
        return count(descriptor, offset, length)

    monkeypatch.setattr(kernel, "count_cached_pages", noting)
    with opened(path) as descriptor:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        os.pread(descriptor, cached_mib * MIB, 0)
        assert abs(cached_fraction(descriptor, path.stat().st_size) - cached_mib / 128) < 0.02
    assert sum(counted) <= 33 * MIB
    assert len(counted) <= 33, "each costs as much as to load a small tensor"


def test_bytes_are_cached_when_all_their_pages_are(tmp_path: Path) -> None:
    path = written(tmp_path / "file", 8 * MIB)
    cool(path)
    with opened(path) as descriptor:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        os.pread(descriptor, 4 * MIB, 0)
        assert is_cached(descriptor, 0, 4 * MIB)
        assert is_cached(descriptor, 4095, 2)
        assert not is_cached(descriptor, 2 * MIB, 4 * MIB)
        assert not is_cached(descriptor, 6 * MIB, 2 * MIB)


@pytest.mark.usefixtures("refused")
def test_where_cachestat_is_refused_nothing_counts_as_cached(tmp_path: Path) -> None:
    with opened(written(tmp_path / "file", MIB)) as descriptor:
        assert not is_cached(descriptor, 0, MIB)


@pytest.mark.usefixtures("refused")
def test_where_cachestat_is_refused_single_bytes_tell_warm_from_cold(tmp_path: Path) -> None:
    path = written(tmp_path / "file", 16 * MIB)
    with opened(path) as descriptor:
        if not answers_at_once(descriptor):
            pytest.skip("the temporary folder's file system has no RWF_NOWAIT")
        assert cached_fraction(descriptor, 16 * MIB) == 1.0


def answers_at_once(descriptor: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def test_probing_does_not_make_a_cold_file_look_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused byte makes the kernel fetch its page: ranks that ask one after another must not find those."""
    path = written(tmp_path / "file", 64 * MIB)
    cool(path)
    monkeypatch.setattr(kernel, "_libc", Refusing())
    with opened(path) as descriptor:
        for _ in range(8):
            assert cached_fraction(descriptor, 64 * MIB) < 0.5
            time.sleep(0.02)  # for those pages to arrive


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("nbytes", [1, 63, 64, 65])
def test_tiny_files_can_be_probed(tmp_path: Path, nbytes: int) -> None:
    path = written(tmp_path / "file", nbytes)
    with opened(path) as descriptor:
        assert cached_fraction(descriptor, nbytes) == (1.0 if answers_at_once(descriptor) else 0.0)


@pytest.mark.usefixtures("refused")
def test_a_file_system_without_probes_counts_as_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    path = written(tmp_path / "file", MIB)
    monkeypatch.setattr(os, "preadv", preadv)
    with opened(path) as descriptor:
        assert cached_fraction(descriptor, MIB) == 0.0
