"""What only ``mmap`` can get wrong: pages that cannot come in, and writes that must stay here."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from typing import TYPE_CHECKING

import pytest

from c_library import MadviseSays, Refusing
from fastload._address_space import address_of
from fastload._read import populate as populate_module
from fastload._read.populate import PopulatingReader, map_file
from fastload.errors import FormatError, IntegrityError, StoreError
from shard_files import DATA, write_shard

if TYPE_CHECKING:
    from pathlib import Path

    from fastload._format.checkpoint import Shard


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return write_shard(tmp_path / "model.safetensors")


def populate(shard: Shard) -> None:
    memory, reader = map_file(shard), PopulatingReader(shard)
    try:
        reader.read_into(0, [memory])
    finally:
        reader.close()


def test_what_is_written_to_the_mapping_stays_in_this_process(shard: Shard) -> None:
    memory = map_file(shard)
    memory[-len(DATA) :] = bytes(len(DATA))
    with open(shard.path, "rb") as file:
        assert file.read()[-len(DATA) :] == DATA


@pytest.mark.parametrize(("nbytes", "border_bytes"), [(len(DATA), 2 << 20), (100, 4096)])
def test_a_file_is_mapped_where_huge_pages_of_the_page_cache_fit(
    tmp_path: Path, nbytes: int, border_bytes: int
) -> None:
    """Elsewhere the kernel maps no more than 64 KiB in a fault."""
    shard = write_shard(tmp_path / "model.safetensors", DATA[:nbytes])
    mapped = [map_file(shard) for _ in range(5)]  # by chance not all of them
    assert [address_of(memory) % border_bytes for memory in mapped] == [0] * 5
    assert all(memory == (tmp_path / "model.safetensors").read_bytes() for memory in mapped)


@pytest.fixture
def unknown_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not tell what is in the page cache."""
    monkeypatch.setattr("fastload._read.kernel._libc", Refusing())


@pytest.mark.usefixtures("unknown_cache")
@pytest.mark.parametrize("begin", [0, 4097])
def test_pages_are_mapped_before_they_are_touched(shard: Shard, begin: int) -> None:
    memory, reader = map_file(shard)[begin:], PopulatingReader(shard)
    assert mapped_bytes(memory) == 0
    reader.read_into(begin, [memory])
    reader.close()
    assert mapped_bytes(memory) >= len(memory)


def test_pages_that_are_cached_are_left_to_the_first_touch(shard: Shard) -> None:
    memory, reader = map_file(shard), PopulatingReader(shard)
    reader.read_into(0, [memory])
    reader.close()
    assert mapped_bytes(memory) == 0


def mapped_bytes(memory: memoryview) -> int:
    """How much of the mapping below ``memory`` has page table entries."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    is_it = False
    with open("/proc/self/smaps", encoding="ascii") as file:
        for line in file:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if head is not None:
                is_it = int(head[1], 16) <= address < int(head[2], 16)
            elif is_it and line.startswith("Rss:"):
                return int(line.split()[1]) << 10
    raise AssertionError("no such mapping")


def test_a_file_cut_off_under_its_mapping_is_an_integrity_error_and_no_sigbus(shard: Shard) -> None:
    memory, reader = map_file(shard), PopulatingReader(shard)
    os.truncate(shard.path, 8192)
    with pytest.raises(IntegrityError) as caught:
        reader.read_into(4096, [memory[4096:8192], memory[8192:]])
    reader.close()
    assert (caught.value.path, caught.value.offset) == (shard.path, 8192)
    assert "8,192 bytes" in caught.value.found


@pytest.mark.usefixtures("unknown_cache")
def test_pages_that_fail_in_an_unchanged_file_are_a_store_error(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(populate_module, "_libc", MadviseSays(errno.EFAULT, populate_module._libc))
    with pytest.raises(StoreError, match="Input/output error"):
        populate(shard)


@pytest.mark.usefixtures("unknown_cache")
def test_no_memory_for_pages_is_no_fault_of_the_file(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(populate_module, "_libc", MadviseSays(errno.ENOMEM, populate_module._libc))
    with pytest.raises(StoreError, match="Cannot allocate memory"):
        populate(shard)


@pytest.mark.usefixtures("unknown_cache")
def test_a_kernel_that_cannot_populate_leaves_it_to_the_first_touch(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(populate_module, "_libc", MadviseSays(errno.EINVAL, populate_module._libc))
    populate(shard)


def test_a_mapping_holds_no_descriptor(shard: Shard) -> None:
    before = set(os.listdir("/proc/self/fd"))
    mapped = [map_file(shard) for _ in range(3)]
    assert set(os.listdir("/proc/self/fd")) == before
    with open("/proc/self/maps", encoding="utf-8") as maps:
        regions = [line for line in maps if line.rstrip().endswith(shard.path)]
    assert len(regions) == 3
    assert all(bytes(memory[-len(DATA) :]) == DATA for memory in mapped)
    mapped.clear()
    del maps
    with open("/proc/self/maps", encoding="utf-8") as after:
        assert shard.path not in after.read()


def test_a_file_that_shrinks_while_it_is_mapped_is_an_integrity_error(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.stat(shard.path)
    monkeypatch.setattr(os, "fstat", lambda _: status)  # what was seen just before
    os.truncate(shard.path, 4096)
    with pytest.raises(IntegrityError, match="became shorter"):
        map_file(shard)


def test_what_cannot_be_mapped_is_refused_like_what_cannot_be_read(shard: Shard) -> None:
    os.unlink(shard.path)
    os.mkfifo(shard.path)
    with pytest.raises(FormatError, match="FIFO"):
        map_file(shard)


def test_a_file_that_cannot_be_looked_at_any_more_is_an_error_of_ours(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, reader = map_file(shard), PopulatingReader(shard)

    def fail(_: int) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        with pytest.raises(StoreError, match="Input/output error"):
            reader.read_into(0, [memory])
    reader.close()
