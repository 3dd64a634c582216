"""What is right on the disk and wrong in memory: a page of the page cache, or a buffer on the way."""

from __future__ import annotations

import fcntl
import os
import threading
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError
from fastload._read.file import identify
from fastload.cli import main
from models import MIB, assert_same
from proven_models import PLACES, READERS, REPO, Model, two_large_tensors
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Hits = Callable[[int, int, int], int | None]
    """Which byte of a read of a descriptor, from an offset on, of so many bytes, is flipped."""

WITH_BLOCKS = [kind for kind in PLACES if kind.startswith("manifest")]
WITHOUT = [kind for kind in PLACES if kind not in WITH_BLOCKS]
SHARD = "model-00001-of-00002.safetensors"


def flip_reads(monkeypatch: pytest.MonkeyPatch, hits: Hits) -> None:
    """Flip a bit in what the system reads, after it was read."""
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        count = real(descriptor, buffers, offset, *flags)
        at = hits(descriptor, offset, count)
        if at is not None:
            ends = list(accumulate(map(len, buffers)))
            number = bisect_right(ends, at)
            buffers[number][at - ends[number]] ^= 1
        return count

    monkeypatch.setattr(os, "preadv", preadv)


def in_page_cache(path: Path, wrong: int) -> Hits:
    """One byte is wrong as long as it is read through the page cache."""
    file = os.stat(path)

    def hits(descriptor: int, offset: int, count: int) -> int | None:
        is_direct = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
        same = os.path.samestat(os.fstat(descriptor), file)
        return wrong - offset if same and not is_direct and offset <= wrong < offset + count else None

    return hits


def once(path: Path, wrong: int) -> Hits:
    """One byte is wrong the first time that it is read for its tensor, by whichever reader."""
    file, left = os.stat(path), threading.Semaphore(1)

    def hits(descriptor: int, offset: int, count: int) -> int | None:
        same = os.path.samestat(os.fstat(descriptor), file) and offset <= wrong < offset + count
        return wrong - offset if same and left.acquire(blocking=False) else None

    return hits


@pytest.mark.parametrize(
    ("flips", "at"),
    [(in_page_cache, 9), (in_page_cache, 5 * MIB), (once, 5 * MIB)],
    ids=["header in a page", "weights in a page", "weights in a buffer"],
)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", WITH_BLOCKS)
def test_a_bad_page_or_buffer_is_healed_by_reading_again(
    model: Model, kind: str, reader: str, flips: Callable[[Path, int], Hits], at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the page cache, since that may be what is wrong."""
    folder = PLACES[kind](model)
    (folder / SHARD).read_bytes()  # so that auto reads it from the page cache
    flip_reads(monkeypatch, flips(folder / SHARD, at))
    weights = fastload.load(folder, reader=reader)
    assert_same(weights, model.tensors)
    # The header is read through the page cache in any case; that its block is once more, for its tensors, counts once.
    seen = 1 if flips is once else int(at == 9 or reader != "direct")
    assert (weights.report.blocks_reread, weights.report.blocks_repaired) == (seen, 0)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", WITHOUT)
def test_without_block_digests_all_is_loaded_once_more(
    model: Model, kind: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PLACES[kind](model)
    flip_reads(monkeypatch, once(folder / SHARD, 5 * MIB))
    weights = fastload.load(folder, reader=reader)
    assert_same(weights, model.tensors)
    assert f"{SHARD} was wrong when it was read" in weights.report.evidence_reason
    assert "right as it is stored" in weights.report.evidence_reason


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", WITHOUT)
def test_a_stream_without_block_digests_ends(
    model: Model, kind: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PLACES[kind](model)
    flip_reads(monkeypatch, once(folder / SHARD, 5 * MIB))
    with pytest.raises(IntegrityError, match="sha256") as caught:
        list(fastload.stream(folder, reader=reader))
    assert caught.value.path == str(folder / SHARD)


@pytest.mark.parametrize("load", [fastload.load, lambda path, **how: dict(fastload.stream(path, **how))])
@pytest.mark.parametrize("verify", ["auto", "require"])
@pytest.mark.parametrize("reader", READERS)
def test_a_header_that_was_read_as_another_one_ends_the_load_too(
    tmp_path: Path, load: Callable[..., object], verify: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = two_large_tensors(tmp_path)
    folder = write_cache(tmp_path / "local", REPO, COMMIT, {"model.safetensors": content})
    real, at, left = os.pread, content.index(b"first"), threading.Semaphore(1)

    def pread(descriptor: int, nbytes: int, offset: int) -> bytes:
        read = real(descriptor, nbytes, offset)
        is_it = read[at - offset :].startswith(b"first") and left.acquire(blocking=False)
        return read.replace(b"first", b"girst", 1) if is_it else read

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(IntegrityError, match="another header") as caught:
        load(folder, reader=reader, verify=verify)
    assert caught.value.path == str(folder / "model.safetensors")
    assert list(fastload.load(folder)) == ["first", "last"]


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("kind", PLACES)
def test_what_only_the_page_cache_has_wrong_is_no_damage_of_what_is_stored(
    model: Model, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, repair: bool
) -> None:
    folder = PLACES[kind](model)
    before = identify((folder / SHARD).stat())
    flip_reads(monkeypatch, in_page_cache(folder / SHARD, 5 * MIB))
    found = fastload.verify(folder, repair=repair)
    assert found.findings == ()
    assert [file.path for file in found.files if file.reread] == [SHARD]
    assert identify((folder / SHARD).stat()) == before  # its atime may move: it was read
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.count("right past the page cache") == 1
