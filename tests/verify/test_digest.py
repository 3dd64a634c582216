"""Digests are what others compute: hashlib, the BLAKE3 test vectors, and git itself."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fastload._verify.digest import (
    BLOCK_BYTES,
    SMALL_FILE_BYTES,
    ContentHash,
    block_digest,
    block_length,
    blocks_of,
    count_blocks,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VECTORS = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
}
"""Of https://github.com/BLAKE3-team/BLAKE3/blob/master/test_vectors/test_vectors.json: bytes 0, 1, … 250, 0, …"""


@pytest.mark.parametrize("length", VECTORS)
def test_blocks_have_the_digests_of_the_specification(length: int) -> None:
    assert block_digest(bytes(place % 251 for place in range(length))) == VECTORS[length]


@given(st.binary(max_size=3000))
def test_any_buffer_has_the_digest_of_its_bytes(content: bytes) -> None:
    expected = blake3(content).hexdigest()
    assert {block_digest(buffer) for buffer in (content, bytearray(content), memoryview(content))} == {expected}


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 0), (1, 1), (BLOCK_BYTES - 1, 1), (BLOCK_BYTES, 1), (BLOCK_BYTES + 1, 2), (1 << 53, 1 << 31)],
)
def test_blocks_are_counted(size: int, count: int) -> None:
    assert count_blocks(size) == count


def test_only_the_last_block_is_shorter() -> None:
    size = 2 * BLOCK_BYTES + 5
    assert list(blocks_of(size)) == [
        (0, 0, BLOCK_BYTES),
        (1, BLOCK_BYTES, BLOCK_BYTES),
        (2, 2 * BLOCK_BYTES, 5),
    ]
    assert [block_length(number, size) for number in range(3)] == [BLOCK_BYTES, BLOCK_BYTES, 5]


@given(st.integers(0, 20 * BLOCK_BYTES) | st.integers(0, 20).map(lambda count: count * BLOCK_BYTES))
def test_blocks_cover_a_file_without_a_gap(size: int) -> None:
    at = 0
    for number, block in enumerate(blocks_of(size)):
        assert (block.number, block.offset) == (number, at)
        assert 0 < block.length <= BLOCK_BYTES
        at += block.length
    assert at == size
    assert len(list(blocks_of(size))) == count_blocks(size)
    assert block_length(0, 0) == 0


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_a_file_has_the_digests_of_all_its_bytes(pieces: Sequence[bytes]) -> None:
    content = b"".join(pieces)
    digests = ContentHash(len(content))
    for piece in pieces:
        digests.update(piece)
    assert digests.sha256 == hashlib.sha256(content).hexdigest()
    assert digests.git_sha1 == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("content", [b"", b"x", b"a\nb\n", b"a\r\nb\r\n", b"\0" * 100_000, bytes(range(256))])
def test_small_files_are_named_as_git_names_them(tmp_path: Path, content: bytes) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("no git to compare with")
    path = tmp_path / "file"
    path.write_bytes(content)
    command = [git, "hash-object", "--no-filters", str(path)]
    named = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    digests = ContentHash(len(content))
    digests.update(content)
    assert digests.git_sha1 == named


def test_a_file_too_large_for_git_has_no_sha1() -> None:
    assert ContentHash(SMALL_FILE_BYTES).git_sha1 is not None
    large = ContentHash(SMALL_FILE_BYTES + 1)
    large.update(b"x")
    assert large.git_sha1 is None
    assert large.sha256 == hashlib.sha256(b"x").hexdigest()
