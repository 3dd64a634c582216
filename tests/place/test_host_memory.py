"""Host memory: private, in huge pages, and given back page by page without touching the neighbours."""

from __future__ import annotations

import gc
import mmap
import os
import re

import pytest
import torch

from fastload._address_space import address_of, map_anonymous
from fastload._place.memory import copy_bytes, free_pages_with, map_staging
from fastload.errors import MemoryBudgetError
from own_memory import in_child, pages_present, present_bytes
from packed_files import KIB, MIB, PAGE

HUGE = 2 * MIB


@pytest.mark.parametrize("nbytes", [1, PAGE + 1, HUGE - 1, HUGE, HUGE + 1, 5 * HUGE + 3])
def test_memory_is_as_long_as_asked_for_and_zero(nbytes: int) -> None:
    memory = map_anonymous(nbytes)
    assert len(memory) == nbytes
    assert not any(memory)
    memory[-1] = 1


@pytest.mark.parametrize(("nbytes", "border"), [(1, PAGE), (HUGE - 1, PAGE), (HUGE, HUGE), (3 * HUGE + 1, HUGE)])
def test_memory_begins_at_the_border_of_a_page_or_a_huge_page(nbytes: int, border: int) -> None:
    assert address_of(map_anonymous(nbytes)) % border == 0


def test_large_memory_asks_for_huge_pages() -> None:
    memory = map_anonymous(4 * HUGE)
    flags = mapping_flags(address_of(memory))
    if not os.path.exists("/sys/kernel/mm/transparent_hugepage"):
        pytest.skip("this kernel has no transparent huge pages")
    assert "hg" in flags


def mapping_flags(address: int) -> list[str]:
    is_it = False
    with open("/proc/self/smaps", encoding="ascii") as file:
        for line in file:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if head is not None:
                is_it = int(head[1], 16) <= address < int(head[2], 16)
            elif is_it and line.startswith("VmFlags:"):
                return line.split()[1:]
    raise AssertionError("no such mapping")


def test_what_a_forked_child_writes_is_not_seen_here() -> None:
    memory = map_anonymous(HUGE)

    def write() -> bool:
        memory[0] = 1
        return memory[0] == 1

    assert in_child(write)
    assert memory[0] == 0


def test_a_forked_child_does_not_get_staging_memory() -> None:
    """While a device or O_DIRECT writes to a page that a fork shares, the kernel may move this process to a copy."""
    memory = map_staging(HUGE)
    assert in_child(lambda: pages_present(address_of(memory), len(memory)) is None)
    memory[0] = 1
    assert len(memory) == HUGE
    assert address_of(memory) % HUGE == 0


def test_small_staging_memory_is_not_inherited_either() -> None:
    memory = map_staging(PAGE)
    assert in_child(lambda: pages_present(address_of(memory), PAGE) is None)


def test_a_view_keeps_memory_alive_and_the_last_one_unmaps_it() -> None:
    memory = map_anonymous(64 * HUGE)
    address = address_of(memory)
    view = memory[-10:]
    del memory
    view[:] = b"0123456789"
    assert bytes(view) == b"0123456789"
    assert pages_present(address, HUGE) is not None
    del view
    assert pages_present(address + HUGE, 62 * HUGE) is None


def test_more_than_the_address_space_is_a_memory_budget_error() -> None:
    with pytest.raises(MemoryBudgetError) as caught:
        map_anonymous(1 << 62)
    assert caught.value.needed_bytes == (1 << 62) + HUGE, "with the slack in which it is placed"


def test_copying_copies() -> None:
    source, target = map_anonymous(100), map_anonymous(100)
    source[:] = bytes(range(100))
    copy_bytes(target[10:60], source[30:80])
    assert bytes(target) == bytes(10) + bytes(range(30, 80)) + bytes(40)


def filled(nbytes: int) -> memoryview:
    memory = map_anonymous(nbytes)
    memory[:] = b"\x5a" * nbytes
    return memory


@pytest.mark.parametrize(("begin", "end"), [(0, HUGE), (HUGE + 100, 3 * HUGE - 100), (PAGE - 1, 3 * PAGE + 1)])
def test_pages_return_with_their_view_and_the_neighbours_keep_every_byte(begin: int, end: int) -> None:
    memory = filled(4 * HUGE)
    buffer = memory[begin:end]
    free_pages_with(buffer)
    assert present_bytes(memory) == len(memory)
    del buffer
    first, last = -(-begin // PAGE), end // PAGE
    pages = pages_present(address_of(memory), len(memory))
    assert pages is not None
    assert [number for number, present in enumerate(pages) if not present] == list(range(first, last))
    expected = bytearray(b"\x5a" * len(memory))
    expected[first * PAGE : last * PAGE] = bytes((last - first) * PAGE)
    assert memory == expected


@pytest.mark.parametrize(("begin", "end"), [(10, PAGE + 10), (10, 100)])
def test_less_than_a_page_is_nothing_to_return(begin: int, end: int) -> None:
    memory = filled(2 * PAGE)
    buffer = memory[begin:end]
    free_pages_with(buffer)
    del buffer
    assert memory == b"\x5a" * len(memory)


def test_any_view_of_a_tensor_keeps_its_bytes() -> None:
    memory = filled(4 * HUGE)
    buffer = memory[HUGE : 3 * HUGE]
    free_pages_with(buffer)
    tensor = torch.frombuffer(buffer, dtype=torch.uint8)
    row = tensor.view(2, -1)[1, :10]
    array = tensor.numpy()
    del buffer, tensor
    gc.collect()
    assert row.tolist() == [0x5A] * 10
    assert present_bytes(memory) == len(memory)
    del row
    assert int(array[-1]) == 0x5A
    del array
    gc.collect()
    assert present_bytes(memory) == 2 * HUGE


def test_the_last_view_of_a_mapping_may_be_one_that_returns_pages() -> None:
    memory = filled(64 * HUGE)
    address = address_of(memory)
    buffer = memory[HUGE:-HUGE]
    free_pages_with(buffer)
    del memory
    assert bytes(buffer[:3]) == b"\x5a" * 3
    del buffer
    assert pages_present(address + HUGE, 62 * HUGE) is None


def test_pages_of_many_views_return_one_by_one() -> None:
    memory = filled(16 * MIB)
    buffers = [memory[at : at + MIB] for at in range(0, len(memory), MIB)]
    for buffer in buffers:
        free_pages_with(buffer)
    del buffer
    for left in range(15, -1, -1):
        buffers.pop(left // 2)  # from the middle
        assert present_bytes(memory) == left * MIB


def test_returning_pages_does_not_disturb_what_was_mapped_since() -> None:
    """The finaliser runs when the view is gone: by then the address must not belong to anybody else."""
    for _ in range(50):
        buffer = filled(HUGE)[:]
        free_pages_with(buffer)
        del buffer
        others = [mmap.mmap(-1, 256 * KIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(8)]
        for other in others:
            other[:] = b"\x77" * len(other)
        assert all(other[:] == b"\x77" * len(other) for other in others)
