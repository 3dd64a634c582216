"""A digest of a whole file of which nothing is read for its own sake."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from fastload._read.around import ReaderAround
from fastload._read.choose import choose_reader
from fastload._read.proof import ProofTell
from fastload._read.tally import ProofTally
from fastload._read.whole_proof import WholeDigest, WholeProof
from fastload._verify.digest import BLOCK_BYTES, block_digest, count_blocks
from fastload.errors import IntegrityError
from shard_files import write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fastload._read.reader import Reader
    from fastload._verify.manifest import ManifestFile


@pytest.mark.parametrize(("is_over", "proofs"), [(False, 1), (True, 0)])
def test_a_file_is_read_for_its_digest_unless_the_load_is_over(tmp_path: Path, *, is_over: bool, proofs: int) -> None:
    """A rank of a group may have most of a file to read that another one had read before it ended."""
    shard = write_shard(tmp_path / "model.safetensors")
    digest = WholeDigest(hashlib.sha256((tmp_path / shard.name).read_bytes()).hexdigest(), None, shard.header)
    tell = ProofTell(ProofTally(), nullcontext, nullcontext, lambda: is_over)
    proven: list[ManifestFile] = []
    blocks = frozenset(range(count_blocks(shard.identity.size)))
    reader = choose_reader(shard, "buffered").open(shard)
    WholeProof(reader, shard, digest, blocks, tell, proven.append).close()
    assert [file.sha256 for file in proven] == [digest.sha256] * proofs


@pytest.mark.parametrize("name", ["buffered", "mmap"])
def test_a_file_that_is_wrong_from_its_first_block_on_is_let_go(tmp_path: Path, leaks_nothing: None, name: str) -> None:
    """What nobody else reads is read where the file is opened, by whom nobody has a reader to close yet."""
    shard = write_shard(tmp_path / "model.safetensors")
    blocks = frozenset(range(count_blocks(shard.identity.size)))
    tell = ProofTell(ProofTally(), nullcontext, nullcontext, lambda: False)
    reader = choose_reader(shard, name).open(shard)
    with pytest.raises(IntegrityError):
        WholeProof(reader, shard, WholeDigest("0" * 64, None, shard.header), blocks, tell, lambda _: None)


def test_whoever_waits_for_a_turn_has_digested_its_blocks(tmp_path: Path) -> None:
    """The chain is what the load of one file waits for, so nothing is in it that needs no order."""
    shard = write_shard(tmp_path / "model.safetensors")
    content = (tmp_path / shard.name).read_bytes()
    digest = WholeDigest(hashlib.sha256(content).hexdigest(), None, shard.header)
    hashed: list[str] = []
    is_waiting = threading.Event()

    @contextmanager
    def hashing() -> Iterator[None]:
        hashed.append(threading.current_thread().name)
        yield

    @contextmanager
    def queueing() -> Iterator[None]:
        is_waiting.set()
        yield

    proven: list[ManifestFile] = []
    reader = choose_reader(shard, "buffered").open(shard)
    tell = ProofTell(ProofTally(), hashing, queueing, lambda: False)
    proof = WholeProof(reader, shard, digest, frozenset(), tell, proven.append)
    rest = memoryview(bytearray(len(content) - BLOCK_BYTES))
    last = threading.Thread(
        target=proof.read_into, args=(BLOCK_BYTES, [rest[:100], rest[100:]]), name="last", daemon=True
    )
    last.start()
    assert is_waiting.wait(timeout=60)
    assert hashed == ["last", "last"]
    first = memoryview(bytearray(BLOCK_BYTES))
    proof.read_into(0, [first])
    last.join(timeout=60)
    proof.close()
    assert bytes(first) + bytes(rest) == content
    blocks = tuple(block_digest(content[at : at + BLOCK_BYTES]) for at in range(0, len(content), BLOCK_BYTES))
    assert [(file.sha256, file.blocks) for file in proven] == [(digest.sha256, blocks)]


class _Held(ReaderAround):
    """Lets the first read of one block wait, and tells when it has begun."""

    def __init__(self, reader: Reader, held: int) -> None:
        super().__init__(reader)
        self._held = held
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        if offset == self._held * BLOCK_BYTES and not self.has_begun.is_set():
            self.has_begun.set()
            assert self.may_go_on.wait(timeout=60)
        self._reader.read_into(offset, buffers)


class _Late(WholeProof):
    """The thread of the first block is late to look for what nobody reads: another may be at it, if it can be."""

    _reader: _Held

    def _take_unplanned(self) -> None:
        if threading.current_thread().name == "first":
            self._reader.has_begun.wait(timeout=0.5)
        super()._take_unplanned()


def test_what_nobody_reads_is_digested_once(tmp_path: Path) -> None:
    """It belongs to one turn, however late whoever had the turn before is: else a file that is right would not be."""
    shard = write_shard(tmp_path / "model.safetensors")
    digest = WholeDigest(hashlib.sha256((tmp_path / shard.name).read_bytes()).hexdigest(), None, shard.header)
    reader = _Held(choose_reader(shard, "buffered").open(shard), held=2)
    tell = ProofTell(ProofTally(), nullcontext, nullcontext, lambda: False)
    proven: list[ManifestFile] = []
    proof = _Late(reader, shard, digest, frozenset({2}), tell, proven.append)
    wrong: list[IntegrityError] = []

    def read(index: int) -> None:
        try:
            proof.read_into(index * BLOCK_BYTES, [memoryview(bytearray(BLOCK_BYTES))])
        except IntegrityError as exc:
            wrong.append(exc)

    first, second = (
        threading.Thread(target=read, args=(at,), name=name) for at, name in enumerate(("first", "second"))
    )
    first.start()
    second.start()
    first.join(timeout=60)
    reader.may_go_on.set()
    second.join(timeout=60)
    proof.close()
    assert wrong == []
    assert [file.sha256 for file in proven] == [digest.sha256]
