"""A digest of a whole file of which nothing is read for its own sake."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from fastload._read.choose import choose_reader
from fastload._read.proof import ProofTell
from fastload._read.tally import ProofTally
from fastload._read.whole_proof import WholeDigest, WholeProof
from fastload._verify.digest import BLOCK_BYTES, block_digest, count_blocks
from shard_files import write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
