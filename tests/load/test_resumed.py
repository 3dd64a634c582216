"""A load goes on where an earlier one was ended: what is on the local tier already is not fetched again, but proven."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import fastload
from fastload import Options
from fastload._verify.digest import BLOCK_BYTES, block_digest
from hub_server import HubServer, Repo
from models import MIB, assert_same, save_sharded
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "org/name"
FIRST, LAST = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
HEAD_BYTES = 2 * (256 << 10) + 4096
"""The beginning of both shards, and the index."""


@dataclass(frozen=True, repr=False)
class Place:
    """A local tier, and a hub or a mount that has a model of two shards, each of three blocks and a bit."""

    folder: Path
    files: dict[str, bytes]
    tensors: dict[str, torch.Tensor]
    hub: HubServer

    @property
    def local(self) -> Path:
        return self.folder / "local"

    @property
    def ours(self) -> Path:
        return self.local / "models--org--name/.fastload"

    @property
    def options(self) -> Options:
        return Options(local=str(self.local), tiers=("local", "hub"))

    @property
    def from_mount(self) -> Options:
        shared = self.folder / "shared"
        if not shared.exists():
            write_cache(shared, REPO, COMMIT, self.files)
        return Options(local=str(self.local), shared=str(shared), tiers=("local", "shared"))

    def interrupt(self, options: Options | None = None) -> int:
        """A load that brings the first shard alone, and so publishes nothing; the bytes that it staged."""
        names = [name for name in self.tensors if name.startswith("first")]
        fastload.load(REPO, tensors=names, options=options or self.options)
        assert self.published() == set()
        return sum(len(block) for block in self.staged())

    def staged(self) -> list[bytes]:
        """The blocks that the journals name, as they lie there."""
        blocks: list[bytes] = []
        for journal in (self.ours / "journals").iterdir():
            head, *lines = journal.read_bytes().splitlines()
            content = (self.ours / "staging" / journal.name).read_bytes()
            content = content[: json.loads(head)["size"]]
            numbers = {int(line.split()[0]) for line in lines}
            blocks += [content[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES] for at in numbers]
        return blocks

    def damage(self, index: int, *, tells: bool = False) -> None:
        """Change a staged block of the first shard; ``tells``: its journal says what it is now."""
        (part,) = (self.ours / "staging").iterdir()
        (journal,) = (self.ours / "journals").iterdir()
        content = bytearray(part.read_bytes())
        content[index * BLOCK_BYTES + 7] ^= 1
        part.write_bytes(content)
        if tells:
            digest = block_digest(content[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]).encode()
            lines = re.sub(rb"(?m)^%d [0-9a-f]{64}$" % index, b"%d %s" % (index, digest), journal.read_bytes())
            journal.write_bytes(lines)

    def published(self) -> set[str]:
        return {path.name for path in self.local.glob("models--org--name/snapshots/*/*")}

    def check_published(self) -> None:
        (snapshot,) = self.local.glob("models--org--name/snapshots/*")
        assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == self.files
        assert fastload.verify(REPO, options=self.options).is_right


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = tmp_path / "made"
    made.mkdir()
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"{shard}.{n}": torch.randint(-99, 99, (5 * MIB // 8 + n,), generator=generator)
        for shard in ("first", "last")
        for n in range(3)
    }
    save_sharded(
        made,
        {
            FIRST: {n: t for n, t in tensors.items() if "first" in n},
            LAST: {n: t for n, t in tensors.items() if "last" in n},
        },
    )
    (made / "config.json").write_text("{}")
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    with HubServer({REPO: Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield Place(tmp_path, files, tensors, hub)


@pytest.mark.usefixtures("leaks_nothing")
def test_what_an_ended_load_had_staged_is_not_fetched_again(place: Place) -> None:
    staged_bytes = place.interrupt()
    assert staged_bytes > 3 * BLOCK_BYTES
    before = place.hub.served_bytes("safetensors")
    weights = fastload.load(REPO, options=place.options)
    assert_same(weights, place.tensors)
    served_bytes = place.hub.served_bytes("safetensors") - before
    assert served_bytes <= sum(map(len, place.files.values())) - staged_bytes + HEAD_BYTES
    assert weights.report.evidence == "listing"
    assert weights.report.bytes_by_tier["local"] == staged_bytes
    assert weights.report.bytes_by_tier["hub"] == weights.report.bytes_read
    assert f"{staged_bytes:,} bytes were on the local tier" in weights.report.reader_reason
    place.check_published()


@pytest.mark.usefixtures("leaks_nothing")
def test_a_part_of_a_model_goes_on_too(place: Place) -> None:
    place.interrupt()
    before = place.hub.served_bytes("safetensors")
    place.interrupt()
    assert place.hub.served_bytes("safetensors") - before <= HEAD_BYTES


@pytest.mark.parametrize("reader", ["auto", "direct", "buffered", "mmap"])
def test_from_a_mount_by_every_reader(place: Place, reader: str) -> None:
    """A mapping is the mount's file, so that nothing can be put into it from elsewhere."""
    options = replace(place.from_mount, reader=reader)
    staged_bytes = place.interrupt(options)
    weights = fastload.load(REPO, options=options)
    assert_same(weights, place.tensors)
    assert weights.report.bytes_by_tier.get("local", 0) == (0 if reader == "mmap" else staged_bytes)
    place.check_published()


def test_of_what_nothing_proves_two_states_are_not_mixed(place: Place) -> None:
    options = replace(place.from_mount, verify="off")
    place.interrupt(options)
    weights = fastload.load(REPO, options=options)
    assert_same(weights, place.tensors)
    assert "local" not in weights.report.bytes_by_tier
    place.check_published()


@pytest.mark.parametrize("reader", ["direct", "buffered"])
@pytest.mark.parametrize("gone", [(0,), (1,), (3,), (0, 2), (1, 3), (0, 1, 2, 3)])
def test_blocks_that_are_missing_between_others_come_from_the_mount(
    place: Place, reader: str, gone: tuple[int, ...]
) -> None:
    options = replace(place.from_mount, reader=reader)
    staged_bytes = place.interrupt(options)
    lost_bytes = sum(len(place.files[FIRST][at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES]) for at in gone)
    for index in gone:
        place.damage(index)
    weights = fastload.load(REPO, options=options)
    assert_same(weights, place.tensors)
    assert weights.report.bytes_by_tier.get("local", 0) == staged_bytes - lost_bytes
    place.check_published()


def test_what_is_staged_is_not_written_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.interrupt()
    (part,) = (place.ours / "staging").iterdir()
    inode = part.stat().st_ino
    written: list[int] = []
    real = os.pwrite

    def watch(descriptor: int, content: Any, offset: int) -> int:
        written.append(os.fstat(descriptor).st_ino)
        return real(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", watch)
    fastload.load(REPO, options=place.options)
    assert written and inode not in written
    place.check_published()


def test_what_a_writer_on_another_machine_left_is_copied(place: Place) -> None:
    """He may still be there, so that nothing is written where he writes."""
    staged_bytes = place.interrupt()
    (journal,) = (place.ours / "journals").iterdir()
    journal.write_bytes(re.sub(rb'"boot_id": "[^"]*"', b'"boot_id": "elsewhere"', journal.read_bytes()))
    (part,) = (place.ours / "staging").iterdir()
    with part.open("rb") as held:
        weights = fastload.load(REPO, options=place.options)
        blobs = (place.local / "models--org--name/blobs").iterdir()
        assert os.fstat(held.fileno()).st_ino not in {path.stat().st_ino for path in blobs}
    assert weights.report.bytes_by_tier["local"] == staged_bytes
    place.check_published()


def test_a_staged_block_that_went_bad_is_fetched_again(place: Place) -> None:
    staged_bytes = place.interrupt()
    place.damage(1)
    weights = fastload.load(REPO, options=place.options)
    assert_same(weights, place.tensors)
    assert weights.report.bytes_by_tier["local"] == staged_bytes - BLOCK_BYTES
    place.check_published()


def test_a_staged_block_whose_journal_lies_is_found_out_and_all_is_loaded_once_more(place: Place) -> None:
    place.interrupt()
    place.damage(1, tells=True)
    weights = fastload.load(REPO, options=place.options)
    assert_same(weights, place.tensors)
    assert "an earlier run had left" in weights.report.evidence_reason
    assert weights.report.bytes_by_tier.keys() == {"hub", "local"}
    assert place.published() == set()
    weights = fastload.load(REPO, options=place.options)  # nothing of it is left by now
    assert "earlier" not in weights.report.evidence_reason
    place.check_published()


def test_a_stream_that_finds_one_cannot_begin_anew(place: Place) -> None:
    place.interrupt()
    place.damage(1, tells=True)
    with pytest.raises(fastload.IntegrityError, match="fastload warm") as caught:
        dict(fastload.stream(REPO, options=place.options))
    assert caught.value.path.endswith(FIRST)
    assert_same(dict(fastload.stream(REPO, options=place.options)), place.tensors)
    place.check_published()


def test_where_blocks_are_known_one_alone_is_mended(place: Place) -> None:
    fastload.warm(REPO, options=Options(local=str(place.folder / "shared"), tiers=("local", "hub")))
    options = Options(local=str(place.local), shared=str(place.folder / "shared"), tiers=("local", "shared"))
    staged_bytes = place.interrupt(options)
    place.damage(1, tells=True)
    weights = fastload.load(REPO, options=options)
    assert_same(weights, place.tensors)
    assert (weights.report.evidence, weights.report.blocks_reread) == ("manifest", 1)
    assert weights.report.bytes_by_tier["local"] == staged_bytes
    place.check_published()


class TestFilesOfAnotherTool:
    """As huggingface_hub leaves them that was ended between two shards: whole blobs, and no whole snapshot."""

    @pytest.fixture(autouse=True)
    def bring(self, place: Place) -> None:
        write_cache(place.local, REPO, place.hub.repos[REPO].commit, {FIRST: place.files[FIRST]})

    def test_they_are_not_fetched_again(self, place: Place) -> None:
        before = place.hub.served_bytes("safetensors")
        weights = fastload.load(REPO, options=place.options)
        assert_same(weights, place.tensors)
        assert place.hub.served_bytes("safetensors") - before <= len(place.files[LAST]) + HEAD_BYTES
        assert weights.report.bytes_by_tier["local"] >= len(place.files[FIRST]) - MIB
        place.check_published()

    def damage(self, place: Place) -> None:
        (blob,) = (path for path in (place.local / "models--org--name/blobs").iterdir() if path.stat().st_size > MIB)
        content = bytearray(blob.read_bytes())
        content[BLOCK_BYTES + 7] ^= 1
        blob.write_bytes(content)

    def test_one_that_was_mended_as_it_passed_is_replaced(self, place: Place) -> None:
        fastload.warm(REPO, options=Options(local=str(place.folder / "shared"), tiers=("local", "hub")))
        self.damage(place)
        options = Options(local=str(place.local), shared=str(place.folder / "shared"), tiers=("local", "shared"))
        weights = fastload.load(REPO, options=options)
        assert_same(weights, place.tensors)
        assert weights.report.blocks_reread == 1
        place.check_published()

    def test_a_damaged_one_does_not_fail_a_load_and_warm_replaces_it(self, place: Place) -> None:
        self.damage(place)
        weights = fastload.load(REPO, options=place.options)
        assert_same(weights, place.tensors)
        assert "an earlier run had left" in weights.report.evidence_reason
        with pytest.raises(fastload.IntegrityError, match="fastload warm"):
            dict(fastload.stream(REPO, options=place.options))
        fastload.warm(REPO, options=place.options)
        place.check_published()
