"""Bounce buffers: all bytes pass, in order; few buffers serve many files."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from fastload._read.bounce import BOUNCE_BYTES, BounceBuffers
from fastload.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LENGTH = 2 * BOUNCE_BYTES + 12_345


@pytest.fixture(name="content")
def fixture_content() -> bytes:
    return os.urandom(LENGTH)


@pytest.fixture(name="opened")
def fixture_opened(tmp_path: Path, content: bytes) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def address_of(piece: memoryview) -> int:
    """Where it lies: views of one buffer hold one object and begin with it."""
    return id(piece.obj)


@pytest.mark.parametrize("offset", [0, 1, BOUNCE_BYTES - 1])
@pytest.mark.parametrize("length", [0, 1, BOUNCE_BYTES, BOUNCE_BYTES + 1, LENGTH - BOUNCE_BYTES])
def test_all_bytes_pass_in_order(opened: int, content: bytes, offset: int, length: int) -> None:
    passed = b"".join(bytes(piece) for piece in BounceBuffers().read_pieces(opened, offset, length, "file"))
    assert passed == content[offset : offset + length]


def test_one_buffer_serves_whoever_comes_next(opened: int) -> None:
    bounces = BounceBuffers()
    buffers = {address_of(piece) for _ in range(5) for piece in bounces.read_pieces(opened, 0, LENGTH, "file")}
    assert len(buffers) == 1


def test_a_buffer_comes_back_from_whom_an_error_ended(opened: int) -> None:
    bounces = BounceBuffers()
    buffers = {address_of(piece) for piece in bounces.read_pieces(opened, 0, 1, "file")}
    with pytest.raises(IntegrityError, match="file"):
        for _ in bounces.read_pieces(opened, 0, LENGTH + 1, "file"):
            pass
    buffers |= {address_of(piece) for piece in bounces.read_pieces(opened, 0, 1, "file")}
    assert len(buffers) == 1


def test_threads_at_once_have_buffers_of_their_own(opened: int, content: bytes) -> None:
    bounces = BounceBuffers()
    both_hold_one = threading.Barrier(2, timeout=30)
    seen: list[tuple[int, bytes]] = []

    def pass_over(offset: int) -> None:
        for piece in bounces.read_pieces(opened, offset, 100, "file"):
            both_hold_one.wait()
            seen.append((address_of(piece), bytes(piece)))

    threads = [threading.Thread(target=pass_over, args=(offset,)) for offset in (0, 1_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {piece for _, piece in seen} == {content[:100], content[1_000:1_100]}
    assert len({buffer for buffer, _ in seen}) == 2
