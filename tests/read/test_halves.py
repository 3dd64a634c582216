"""Each read by two threads: the same bytes, errors of either half, threads that end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3

from fastload._read import halves
from fastload._read.choose import choose_reader
from fastload._read.halves import Helpers, HalvingReader, halved
from fastload._read.proof import BlockProof, ProofTell
from fastload._read.tally import ProofTally
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import IntegrityError, UnsupportedError
from shard_files import aligned_memory, write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fastload._format.checkpoint import Shard

pytestmark = pytest.mark.usefixtures("leaks_nothing")


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return write_shard(tmp_path / "model.safetensors")


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    helpers = Helpers()
    yield helpers
    made = list(helpers._made)
    helpers.close()
    for helper in made:
        helper.thread.join(5)


class Watched:
    """A reader that notes which thread reads what, and fails from an offset on."""

    name, alignment_bytes = "watched", 1

    def __init__(self, fails_at: int | None = None) -> None:
        self.reads: dict[int, tuple[int, int]] = {}
        self._fails_at = fails_at
        self.is_done = threading.Event()

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        if offset == self._fails_at:
            raise IntegrityError("model.safetensors", offset, "nothing", "something")
        self.reads[offset] = (threading.get_ident(), len(buffers[0]))
        buffers[0][:] = bytes([offset // BLOCK_BYTES]) * len(buffers[0])
        self.is_done.set()

    def check_path(self) -> None:
        """Nothing to check."""

    def close(self) -> None:
        """Nothing to close."""


def test_the_second_half_is_read_by_another_thread_and_begins_with_a_block(helpers: Helpers) -> None:
    watched, buffer = Watched(), aligned_memory(3 * BLOCK_BYTES + 5)
    HalvingReader(watched, helpers).read_into(0, [buffer])
    (own, first_bytes), (other, second_bytes) = watched.reads[0], watched.reads[BLOCK_BYTES]
    assert own == threading.get_ident() != other
    assert (first_bytes, second_bytes) == (BLOCK_BYTES, 2 * BLOCK_BYTES + 5)
    assert (buffer[0], buffer[BLOCK_BYTES], buffer[-1]) == (0, 1, 1)


@pytest.mark.parametrize("sizes", [[2 * BLOCK_BYTES - 1], [BLOCK_BYTES, BLOCK_BYTES], [4 * BLOCK_BYTES] * 2])
def test_what_is_small_or_scattered_is_read_as_it_comes(helpers: Helpers, sizes: list[int]) -> None:
    watched = Watched()
    HalvingReader(watched, helpers).read_into(0, [aligned_memory(size) for size in sizes])
    assert [thread for thread, _ in watched.reads.values()] == [threading.get_ident()]
    assert not helpers._made


@pytest.mark.parametrize("half", [0, 1])
def test_an_error_of_either_half_is_the_reads_and_comes_when_both_are_over(helpers: Helpers, half: int) -> None:
    watched, buffer = Watched(fails_at=half * BLOCK_BYTES), aligned_memory(2 * BLOCK_BYTES)
    with pytest.raises(IntegrityError) as caught:
        HalvingReader(watched, helpers).read_into(0, [buffer])
    assert caught.value.offset == half * BLOCK_BYTES
    assert watched.is_done.is_set()
    HalvingReader(Watched(), helpers).read_into(0, [buffer])  # and the helper is of use again


def test_a_helper_keeps_no_memory(helpers: Helpers) -> None:
    buffer = aligned_memory(2 * BLOCK_BYTES)
    HalvingReader(Watched(), helpers).read_into(0, [buffer])
    mapping = buffer.obj
    buffer.release()
    assert not mapping.close()  # BufferError, if anybody held a view


def test_without_threads_it_is_read_all_the_same(helpers: Helpers, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise UnsupportedError("no thread")

    monkeypatch.setattr(halves, "start_thread", refuse)
    watched = Watched()
    HalvingReader(watched, helpers).read_into(0, [aligned_memory(2 * BLOCK_BYTES)])
    assert watched.reads == {0: (threading.get_ident(), 2 * BLOCK_BYTES)}


def test_half_as_many_workers_read_the_exact_bytes(shard: Shard, helpers: Helpers) -> None:
    choice = choose_reader(shard, "buffered")
    half = halved(choice, helpers)
    assert half.depth == -(-choice.depth // 2)
    reader, size = half.open(shard), shard.identity.size
    buffer = aligned_memory(size)
    reader.read_into(0, [buffer])
    reader.check_path()
    reader.close()
    with open(shard.path, "rb") as file:
        assert buffer == file.read()


def test_whoever_reads_a_half_digests_it(shard: Shard, helpers: Helpers) -> None:
    with open(shard.path, "rb") as file:
        content = file.read()
    digests = [blake3(content[at : at + BLOCK_BYTES]).hexdigest() for at in range(0, len(content), BLOCK_BYTES)]
    digesting: list[int] = []

    def hashing() -> AbstractContextManager[None]:
        digesting.append(threading.get_ident())
        return threading.Lock()  # type: ignore[return-value] - any context will do

    tell = ProofTell(ProofTally(), hashing, hashing, lambda: False)
    reader = BlockProof(
        halved(choose_reader(shard, "buffered"), helpers).open(shard), shard, digests, lambda _: None, tell
    )
    buffer = aligned_memory(len(content))
    reader.read_into(0, [buffer])
    reader.close()
    assert buffer == content
    assert tell.tally.verified == len(digests) == len(digesting)
    assert len(set(digesting)) == 2
