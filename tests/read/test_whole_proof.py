"""A digest of a whole file of which nothing is read for its own sake."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from fastload._read.choose import choose_reader
from fastload._read.proof import ProofTell
from fastload._read.tally import ProofTally
from fastload._read.whole_proof import WholeDigest, WholeProof
from fastload._verify.digest import count_blocks
from shard_files import write_shard

if TYPE_CHECKING:
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
