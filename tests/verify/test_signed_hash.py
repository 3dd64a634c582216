"""What was signed of a file, however its bytes come and wherever its shards end."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fastload._store.offer import OfferedFile
from fastload._verify.difference import Difference
from fastload._verify.digest import ContentHash
from fastload._verify.signed_hash import SignedHash
from fastload._verify.statement import ShardedFile, SignedShard, WholeFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastload._verify.statement import SignedFile

CONTENT = bytes(range(250)) * 2
DIGESTS: dict[str, Callable[[bytes], str]] = {
    "sha256": lambda content: hashlib.sha256(content).hexdigest(),
    "blake2b": lambda content: hashlib.blake2b(content).hexdigest(),
    "blake3": lambda content: blake3(content).hexdigest(),
}


def sharded(content: bytes, borders: Iterable[int], algorithm: str = "sha256") -> ShardedFile:
    ends = sorted({*borders, len(content)})
    pairs = zip([0, *ends], ends, strict=False)
    digest = DIGESTS[algorithm]
    return ShardedFile(algorithm, tuple(SignedShard(start, end, digest(content[start:end])) for start, end in pairs))


def difference(signed: SignedFile, content: bytes, cuts: Iterable[int] = ()) -> Difference | None:
    hashed = SignedHash(signed)
    ends = sorted({*cuts, len(content)})
    for begin, end in zip([0, *ends], ends, strict=False):
        hashed.update(memoryview(content)[begin:end])
    return hashed.find_difference()


places = st.sets(st.integers(1, len(CONTENT) - 1), max_size=5)


@given(algorithm=st.sampled_from(sorted(DIGESTS)), borders=places, cuts=places)
def test_what_was_signed_is_found_right(algorithm: str, borders: set[int], cuts: set[int]) -> None:
    whole = WholeFile(algorithm, DIGESTS[algorithm](CONTENT))
    assert difference(whole, CONTENT, cuts) is None
    assert difference(sharded(CONTENT, borders, algorithm), CONTENT, cuts) is None


@given(borders=places, cuts=places, at=st.integers(0, len(CONTENT) - 1))
def test_every_flip_is_found_and_its_shard_named(borders: set[int], cuts: set[int], at: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[at] ^= 1
    found = difference(sharded(CONTENT, borders), bytes(wrong), cuts)
    end = min(border for border in (*borders, len(CONTENT)) if border > at)
    assert found is not None and found.found.endswith(f"of the shard that ends at byte {end}")
    assert difference(WholeFile("sha256", DIGESTS["sha256"](CONTENT)), bytes(wrong), cuts) is not None


@pytest.mark.parametrize("length", [0, 99, 100, 101, 200, 499])
def test_what_is_too_short_is_found(length: int) -> None:
    signed = sharded(CONTENT, range(100, 500, 100))
    assert difference(signed, CONTENT[:length]) == Difference(f"{length} bytes", "500, which were signed")


def test_what_is_too_long_is_found() -> None:
    assert difference(sharded(CONTENT, [100]), CONTENT + b"x", [500]) == Difference(
        "more than 500 bytes",
        "500, which were signed",
    )


def test_it_is_compared_beside_the_digests_that_hubs_publish() -> None:
    for content, expected in ((CONTENT, None), (CONTENT[:-1], Difference("499 bytes", "500, which were signed"))):
        known = OfferedFile(path="f", size=len(content), signed=sharded(CONTENT, []))
        hashed = ContentHash(len(content), known)
        hashed.update(content)
        assert (hashed.sha256, hashed.find_unsigned()) == (DIGESTS["sha256"](content), expected)
    assert ContentHash(0).find_unsigned() is None
