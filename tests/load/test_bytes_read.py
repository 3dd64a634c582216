"""What a report says was read: of the tier that served, what mending it took too; of others, what they gave."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import fastload
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from pathlib import Path

    from fastload.report import Report

SHARD = "model-00001-of-00002.safetensors"
BLOCK = 4 * MIB
HEADER, LATER = 9, 5 * MIB
"""A byte in the first block of a shard, which has the header, and one in the second."""


def read_by(model: Model, name: str | Path) -> Report:
    weights = fastload.load(name, options=model.options)
    assert_same(weights, model.tensors)
    return weights.report


@pytest.mark.parametrize("by_path", [False, True], ids=["name", "path"])
def test_a_load_counts_what_mending_read_of_its_own_tier(model: Model, by_path: bool) -> None:  # noqa: FBT001 - a case
    folder = model.warmed()
    name = folder if by_path else REPO
    clean = read_by(model, name)
    assert clean.bytes_by_tier == {clean.tier: clean.bytes_read}
    flip(folder / SHARD, LATER)
    report = read_by(model, name)
    size = len(model.files[SHARD])
    again, kept = size - BLOCK, BLOCK  # the bad block past the page cache; then the others, for the copy that is right
    assert report.bytes_read == clean.bytes_read + again + kept
    assert report.bytes_by_tier == {clean.tier: report.bytes_read, f"shared:{model.shared}": size - BLOCK}
    assert read_by(model, name).bytes_read == clean.bytes_read


def test_a_block_with_a_header_is_read_again_as_often_as_it_is_wrong_and_comes_once(model: Model) -> None:
    folder = model.warmed()
    clean = read_by(model, REPO)
    flip(folder / SHARD, HEADER)
    report = read_by(model, REPO)
    assert (report.blocks_reread, report.blocks_repaired) == (1, 1)  # though for the header, and for the tensors
    again, came = 2 * BLOCK, BLOCK  # what came for the header is kept on the local tier, and read there for the tensors
    assert report.bytes_read == clean.bytes_read + again + came + len(model.files[SHARD]) - BLOCK
    assert report.bytes_by_tier == {"local": report.bytes_read, f"shared:{model.shared}": BLOCK}


def test_a_second_read_that_was_right_is_counted(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model.warmed()
    clean = read_by(model, folder)
    real = os.preadv
    flipped: list[int] = []

    def once(descriptor: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        count = real(descriptor, buffers, offset, *flags)
        is_it = os.readlink(f"/proc/self/fd/{descriptor}") == str((folder / SHARD).resolve())
        if is_it and not flipped and offset <= LATER < offset + count:
            next(buffer for buffer in reversed(buffers) if len(buffer))[-1] ^= 1
            flipped.append(offset)
        return count

    monkeypatch.setattr(os, "preadv", once)
    report = fastload.load(folder, reader="buffered").report
    assert (report.blocks_reread, report.blocks_repaired) == (1, 0)
    again = len(model.files[SHARD]) - BLOCK
    assert report.bytes_by_tier == {"path": clean.bytes_read + again}
    assert report.bytes_read == clean.bytes_read + again


def test_what_proves_a_blob_whose_link_was_lost_is_counted(model: Model) -> None:
    folder = model.warmed()
    clean = read_by(model, REPO)
    (folder / SHARD).unlink()
    report = read_by(model, REPO)
    assert report.bytes_read == clean.bytes_read + len(model.files[SHARD])
    assert report.bytes_by_tier == {"local": report.bytes_read}


def test_verify_counts_what_it_read_of_the_stored_file_to_replace_it(model: Model) -> None:
    folder = model.warmed()
    everything, size = sum(map(len, model.files.values())), len(model.files[SHARD])
    assert fastload.verify(REPO, options=model.options).bytes_by_tier == {"local": everything}
    flip(folder / SHARD, LATER)
    found = fastload.verify(REPO, repair=True, options=model.options)
    own = everything + (size - BLOCK) + BLOCK  # all of it, the bad block once more, and the one that is kept
    assert found.bytes_by_tier == {"local": own, f"shared:{model.shared}": size - BLOCK}


def test_verify_counts_the_blob_that_it_proves_before_it_links_it(model: Model) -> None:
    folder = model.warmed()
    everything, size = sum(map(len, model.files.values())), len(model.files[SHARD])
    (folder / SHARD).unlink()
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert found.bytes_by_tier == {"local": everything + size}
    other = folder / SHARD.replace("1-of", "2-of")
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(os.readlink(other))
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert found.bytes_by_tier == {"local": everything}, "of the file that it did not lead to nothing was read"


def test_verify_counts_the_blocks_that_are_kept_of_a_file_that_is_mended_as_a_whole(model: Model) -> None:
    """Its digest is known of all of it alone; a manifest on the other tier tells the bad block from the good one."""
    folder = model.cached()
    mount = write_cache(model.shared, REPO, COMMIT, model.files)
    fastload.verify(mount, record=True)
    flip(folder / SHARD, LATER)
    found = fastload.verify(REPO, repair=True, options=model.options)
    everything, size = sum(map(len, model.files.values())), len(model.files[SHARD])
    # Looked at twice, since it was wrong the first time; and once more for the blocks that are kept.
    assert found.bytes_by_tier == {"local": everything + size + size, f"shared:{model.shared}": size - BLOCK}


def test_verify_counts_what_it_read_to_record(model: Model) -> None:
    model.cached()
    found = fastload.verify(REPO, record=True, options=model.options)
    assert found.recorded
    assert found.bytes_by_tier == {"local": 2 * sum(map(len, model.files.values()))}
