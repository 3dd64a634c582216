"""A load goes on where an earlier one was ended: what is on the local tier already is not fetched again, but proven."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import fastload
import ranks
from fastload import Options
from fastload._store.admit.journal import dump_proven
from fastload._store.admit.staged import StagedFile
from fastload._store.admit.tee import TeeReader
from fastload._verify.digest import BLOCK_BYTES, block_digest
from hub_faults import Stall, WrongBytes
from hub_server import HubServer, Repo
from models import MIB, assert_same, save_sharded
from rank_workers import workers_of
from stored_models import COMMIT, write_cache, write_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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
    def commit(self) -> str:
        return self.hub.repos[REPO].commit

    @property
    def shared_blobs(self) -> list[Path]:
        return list((self.folder / "shared/models--org--name/blobs").iterdir())

    @property
    def from_proven_mount(self) -> Options:
        fastload.warm(REPO, options=Options(local=str(self.folder / "shared"), tiers=("local", "hub")))
        return self.from_mount

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
            numbers = {int(line.split()[0]) for line in lines if line[:1].isdigit()}
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

    def unprove(self) -> None:
        """As if what is staged had never come to its end."""
        for journal in (self.ours / "journals").iterdir():
            assert b"\nproven " in journal.read_bytes()
            journal.write_bytes(re.sub(rb"(?m)^proven .*\n", b"", journal.read_bytes()))

    def prove_anyhow(self) -> None:
        """As if what is staged had come to its end and been right, whatever it is."""
        (journal,) = (self.ours / "journals").iterdir()
        lines = dict(line.split() for line in journal.read_text().splitlines()[1:])
        digests = [lines[str(index)] for index in range(len(lines) - 1)]
        journal.write_bytes(journal.read_bytes() + dump_proven(digests))

    def published(self) -> set[str]:
        return {path.name for path in self.local.glob("models--org--name/snapshots/*/*")}

    def of_another_boot(self) -> None:
        """As if the machine had been restarted since."""
        for journal in (self.ours / "journals").iterdir():
            journal.write_bytes(re.sub(rb'"boot_id": "[^"]*"', b'"boot_id": "elsewhere"', journal.read_bytes()))

    def check_published(self) -> None:
        (snapshot,) = self.local.glob("models--org--name/snapshots/*")
        assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == self.files
        assert fastload.verify(REPO, options=self.options).is_right


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, torch.Tensor]]:
    """Files, and the tensors that are in them."""
    folder = tmp_path_factory.mktemp("made")
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"{shard}.{n}": torch.randint(-99, 99, (5 * MIB // 8 + n,), generator=generator)
        for shard in ("first", "last")
        for n in range(3)
    }
    save_sharded(
        folder,
        {
            FIRST: {n: t for n, t in tensors.items() if "first" in n},
            LAST: {n: t for n, t in tensors.items() if "last" in n},
        },
    )
    (folder / "config.json").write_text("{}")
    return {path.name: path.read_bytes() for path in folder.iterdir()}, tensors


@pytest.fixture
def place(
    made: tuple[dict[str, bytes], dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    files, tensors = made
    with HubServer({REPO: Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield Place(tmp_path, dict(files), tensors, hub)


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
def test_a_part_of_a_model_whose_blocks_are_known_goes_on_too(place: Place) -> None:
    options = place.from_proven_mount
    staged_bytes = place.interrupt(options)
    weights = fastload.load(REPO, tensors="first.*", options=options)
    assert weights.report.bytes_by_tier["local"] == staged_bytes


@pytest.mark.parametrize("load", [fastload.load, lambda *args, **more: dict(fastload.stream(*args, **more))])
@pytest.mark.parametrize("kwargs", [{"tensors": ["first.0", "first.1"]}, {"verify": "off"}])
def test_what_nothing_proves_is_what_the_hub_has_whatever_was_staged(
    place: Place, load: Callable[..., dict[str, torch.Tensor]], kwargs: dict[str, Any]
) -> None:
    """What is staged under a digest is what some source once gave for it, such as a damaged blob of that name."""
    damaged = dict(place.files)
    content = bytearray(damaged[FIRST])
    content[BLOCK_BYTES + 7] ^= 1
    write_cache(place.folder / "shared", REPO, place.commit, damaged)
    (blob,) = (path for path in place.shared_blobs if path.read_bytes() == damaged[FIRST])
    blob.write_bytes(content)
    part = fastload.load(REPO, tensors=["first.0", "first.1"], options=place.from_mount)
    assert part.report.evidence == "none" and place.staged()
    weights = load(f"{REPO}@{place.commit}", options=place.options, **kwargs)
    for name, tensor in weights.items():
        assert torch.equal(tensor, place.tensors[name]), name


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


def test_of_a_plain_folder_two_states_are_not_mixed(place: Place) -> None:
    """Its file was written to, and has the size and the time that it had."""
    options = place.from_mount
    folder = write_folder(place.folder / "shared/mymodel", place.files)
    fastload.load("mymodel", tensors=["first.0", "first.1"], options=options)
    before = os.stat(folder / FIRST)
    content = bytearray(place.files[FIRST])
    content[-5] ^= 1
    content[BLOCK_BYTES + 7] ^= 1
    (folder / FIRST).write_bytes(content)
    os.utime(folder / FIRST, ns=(before.st_atime_ns, before.st_mtime_ns))
    fastload.warm("mymodel", options=options)
    (snapshot,) = place.local.glob("models--mymodel/snapshots/*")
    assert (snapshot / FIRST).read_bytes() == content


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


def test_what_a_writer_on_another_machine_left_is_left_to_him(place: Place) -> None:
    """He may still be there: what is his is not written to, and is not given, as it could not be taken from him."""
    place.interrupt()
    place.of_another_boot()
    (part,) = (place.ours / "staging").iterdir()
    with part.open("rb") as held:
        weights = fastload.load(REPO, options=place.options)
        blobs = (place.local / "models--org--name/blobs").iterdir()
        assert os.fstat(held.fileno()).st_ino not in {path.stat().st_ino for path in blobs}
    assert "local" not in weights.report.bytes_by_tier
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
    assert f"{FIRST} was wrong when some of it was taken from the local tier" in weights.report.evidence_reason
    report = weights.report
    taken = re.findall(r"([\d,]+) bytes were on the local tier", report.reader_reason)
    assert taken in ([], [f"{len(place.files[LAST]):,}"]), "what the first one took of the wrong shard is not said"
    assert report.bytes_by_tier.keys() == {"hub", "local"}
    assert report.bytes_by_tier["hub"] == report.bytes_read >= sum(map(len, place.files.values())) - MIB
    place.check_published()


def test_that_it_cannot_be_forgotten_does_not_hide_that_it_is_wrong(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.interrupt()
    place.damage(1, tells=True)

    def fail(_: StagedFile) -> None:
        raise fastload.StoreError("staging", "cannot be removed")

    monkeypatch.setattr(StagedFile, "discard", fail)
    with caplog.at_level(logging.INFO, logger="fastload"):
        assert_same(fastload.load(REPO, options=place.options), place.tensors)
    assert "cannot be removed" in caplog.text


@pytest.mark.parametrize("tells", [False, True])
def test_a_stream_cannot_begin_anew_and_so_takes_nothing_that_only_the_whole_would_prove(
    place: Place, *, tells: bool
) -> None:
    place.interrupt()
    place.unprove()
    place.damage(1, tells=tells)
    stream = fastload.stream(REPO, options=place.options)
    assert_same(dict(stream), place.tensors)
    assert "local" not in stream.report.bytes_by_tier
    place.check_published()


def refuse_notes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """There is room for all but the notes of what is proven; which those were."""
    refused: list[bytes] = []
    real = os.write

    def write(descriptor: int, content: bytes) -> int:
        if bytes(content).startswith(b"proven "):
            refused.append(bytes(content))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", write)
    return refused


class TestShardsThatWereProven:
    """An ended load had come to their end, and has noted of which blocks they are: each block proves itself then."""

    def stream(self, place: Place) -> dict[str, int]:
        """All of the model, as a stream, with nothing wrong; the bytes by tier."""
        stream = fastload.stream(REPO, options=place.options)
        assert_same(dict(stream), place.tensors)
        place.check_published()
        return dict(stream.report.bytes_by_tier)

    @pytest.mark.usefixtures("leaks_nothing")
    @pytest.mark.parametrize("begin", [fastload.load, lambda *args, **more: dict(fastload.stream(*args, **more))])
    def test_are_not_fetched_again_by_a_stream(self, place: Place, begin: Callable[..., object]) -> None:
        begin(REPO, tensors="first.*", options=place.options)
        staged_bytes = sum(map(len, place.staged()))
        before = place.hub.served_bytes("safetensors")
        assert self.stream(place)["local"] == staged_bytes > 3 * BLOCK_BYTES
        served_bytes = place.hub.served_bytes("safetensors") - before
        assert served_bytes <= sum(map(len, place.files.values())) - staged_bytes + HEAD_BYTES

    def test_are_not_fetched_again_after_a_kill(self, place: Place) -> None:
        """The last shard never comes to its end."""
        place.hub.faults.add(Stall(after_bytes=BLOCK_BYTES, seconds=60), path="*/cdn/*", times=None, skip=6)
        code = f"import fastload, os\nfor n, _ in fastload.stream({REPO!r}, options={place.options!r}):\n"
        code += "    if n == 'first.2': os.kill(os.getpid(), 9)"
        code = f"from fastload import Options\n{code}"
        done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL
        place.hub.faults.clear()
        assert self.stream(place)["local"] >= len(place.files[FIRST])

    def test_are_not_fetched_again_after_a_warm_that_failed(self, place: Place) -> None:
        (last,) = (file for file in place.hub.repos[REPO].commits[place.commit].values() if file.path == LAST)
        place.hub.faults.add(WrongBytes(BLOCK_BYTES), path=f"*/cdn/{last.sha256}/*", times=None)
        with pytest.raises(fastload.IntegrityError):
            fastload.warm(REPO, options=place.options)
        place.hub.faults.clear()
        beside = sum(len(content) for name, content in place.files.items() if not name.endswith(".safetensors"))
        assert self.stream(place)["local"] == len(place.files[FIRST]) + beside, "the copy needs these, and has them"

    def test_are_gone_on_with_again_and_again(self, place: Place) -> None:
        staged_bytes = place.interrupt()
        for _ in range(2):
            stream = fastload.stream(REPO, tensors="first.*", options=place.options)
            dict(stream)
            assert stream.report.bytes_by_tier["local"] == staged_bytes
        assert self.stream(place)["local"] == staged_bytes

    def test_that_have_a_spoilt_block_have_that_one_fetched(self, place: Place) -> None:
        staged_bytes = place.interrupt()
        place.damage(1)
        assert self.stream(place)["local"] == staged_bytes - BLOCK_BYTES

    def test_that_lack_a_line_are_fetched(self, place: Place) -> None:
        place.interrupt()
        (journal,) = (place.ours / "journals").iterdir()
        journal.write_bytes(re.sub(rb"(?m)^2 .*\n", b"", journal.read_bytes()))
        assert "local" not in self.stream(place)

    def test_whose_journal_lies_throughout_fail_at_their_end_and_are_forgotten(self, place: Place) -> None:
        """As does a stream from a source that has it wrong: nothing is handed out wrong that is not said to be."""
        place.interrupt()
        place.damage(1, tells=True)
        place.prove_anyhow()
        stream = fastload.stream(REPO, tensors="first.*", options=place.options)
        with pytest.raises(fastload.IntegrityError, match=FIRST):
            dict(stream)
        assert place.published() == set()
        assert "local" not in self.stream(place)

    def test_whose_journal_lies_throughout_are_forgotten_so_that_to_begin_again_is_enough(self, place: Place) -> None:
        place.interrupt()
        place.damage(1, tells=True)
        place.prove_anyhow()
        with pytest.raises(fastload.IntegrityError, match="is forgotten now: begin again"):
            dict(fastload.stream(REPO, options=place.options))
        assert self.stream(place).get("local", 0) <= len(place.files[LAST]), "nothing of the one that was wrong"

    def test_that_cannot_be_forgotten_are_warms_to_replace(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        place.interrupt()
        place.damage(1, tells=True)
        place.prove_anyhow()

        def fail(_: StagedFile) -> None:
            raise fastload.StoreError("staging", "cannot be removed")

        with monkeypatch.context() as patched:
            patched.setattr(StagedFile, "discard", fail)
            with pytest.raises(fastload.IntegrityError, match="run fastload warm"):
                dict(fastload.stream(REPO, options=place.options))
        fastload.warm(REPO, options=place.options)
        place.check_published()

    @pytest.mark.parametrize("verb", ["load", "stream", "warm"])
    def test_of_which_no_note_can_be_written_are_brought_nonetheless(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, verb: str
    ) -> None:
        """As when the disk is full to the last byte: the note only saves work."""
        refused = refuse_notes(monkeypatch)
        if verb == "load":
            assert_same(fastload.load(REPO, options=place.options), place.tensors)
        elif verb == "stream":
            assert_same(dict(fastload.stream(REPO, options=place.options)), place.tensors)
        else:
            fastload.warm(REPO, options=place.options)
        assert len(refused) == 2, "the shards', and none of small files"
        place.check_published()

    def test_left_early_by_a_stream_are_said_not_to_be_proven(self, place: Place) -> None:
        """Whoever can write to the tier may have written their note too; the end would tell."""
        place.interrupt()
        stream = fastload.stream(REPO, options=replace(place.options, staging_bytes="32Mi"))
        next(iter(stream))
        stream.close()
        assert (stream.report.evidence, stream.report.bytes_by_tier["local"] > 0) == ("none", True)
        assert "left before the end of a file" in stream.report.evidence_reason

    def test_are_not_fetched_again_by_a_group(self, place: Place) -> None:
        options = place.from_mount
        staged_bytes = place.interrupt(options)
        with workers_of(2) as workers:
            loads = workers.call(ranks.load_with, REPO, {"options": options})
        assert [got for got, _ in loads] == [ranks.fingerprints(place.tensors)] * 2
        by_tier = [report.bytes_by_tier for _, report in loads]
        assert 0 < by_tier[0]["local"] <= staged_bytes and "local" not in by_tier[1]
        place.check_published()


def test_a_stream_takes_blocks_that_prove_themselves(place: Place) -> None:
    options = place.from_proven_mount
    staged_bytes = place.interrupt(options)
    place.damage(1, tells=True)
    stream = fastload.stream(REPO, options=options)
    assert_same(dict(stream), place.tensors)
    assert stream.report.bytes_by_tier["local"] == staged_bytes, "the wrong one was read, too"
    place.check_published()


def test_the_source_is_looked_at_too_and_others_are_asked(place: Place) -> None:
    """What was staged is right, and the mount has it wrong: it is not the local tier's fault alone."""
    write_cache(place.folder / "shared", REPO, place.commit, place.files)
    options = replace(place.from_mount, tiers=("local", "shared", "hub"))
    place.interrupt(options)
    place.damage(1)
    for blob in place.shared_blobs:
        if blob.read_bytes() == place.files[FIRST]:
            content = bytearray(place.files[FIRST])
            content[BLOCK_BYTES + 9] ^= 1
            blob.write_bytes(content)
    weights = fastload.load(f"{REPO}@{place.commit}", options=options)
    assert_same(weights, place.tensors)
    assert weights.report.tier == "hub"
    assert "others were asked" in weights.report.evidence_reason


@pytest.mark.parametrize("is_of_this_boot", [False, True])
def test_what_is_wrong_does_not_come_back(place: Place, *, is_of_this_boot: bool) -> None:
    """As after a load of a part from a mount that was mended since."""
    place.interrupt()
    place.damage(1, tells=True)
    if not is_of_this_boot:
        place.of_another_boot()
    fastload.warm(REPO, options=place.options)
    place.check_published()
    assert not list((place.ours / "journals").iterdir())
    assert_same(fastload.load(REPO, options=place.options), place.tensors)


def test_a_stream_that_ends_before_a_block_is_placed_does_not_count_it_against_the_source(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = place.from_proven_mount
    place.interrupt(options)
    read = TeeReader.read_into

    def end(reader: TeeReader, offset: int, buffers: Sequence[memoryview]) -> None:
        read(reader, offset, buffers)
        raise fastload.StoreError("somewhere", "stopped")

    monkeypatch.setattr(TeeReader, "read_into", end)
    stream = fastload.stream(REPO, options=options)
    with pytest.raises(fastload.StoreError, match="stopped"):
        dict(stream)
    report = stream.report
    assert report.bytes_by_tier[report.tier] == report.bytes_read >= 0


def test_where_blocks_are_known_one_alone_is_mended(place: Place) -> None:
    options = place.from_proven_mount
    staged_bytes = place.interrupt(options)
    place.damage(1, tells=True)
    weights = fastload.load(REPO, options=options)
    assert_same(weights, place.tensors)
    assert (weights.report.evidence, weights.report.blocks_reread) == ("manifest", 1)
    assert weights.report.bytes_by_tier["local"] == staged_bytes, "the wrong one was read, too"
    place.check_published()


class TestFilesOfAnotherTool:
    """As huggingface_hub leaves them that was ended between two shards: whole blobs, and no whole snapshot."""

    @pytest.fixture(autouse=True)
    def bring(self, place: Place) -> None:
        write_cache(place.local, REPO, place.commit, {FIRST: place.files[FIRST]})

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
        options = place.from_proven_mount
        self.damage(place)
        weights = fastload.load(REPO, options=options)
        assert_same(weights, place.tensors)
        assert weights.report.blocks_reread == 1
        place.check_published()

    @pytest.mark.parametrize("verb", ["load", "stream", "warm"])
    def test_a_damaged_one_is_replaced(self, place: Place, verb: str) -> None:
        self.damage(place)
        if verb == "warm":
            fastload.warm(REPO, options=place.options)
        elif verb == "stream":
            assert_same(dict(fastload.stream(REPO, options=place.options)), place.tensors)
        else:
            weights = fastload.load(REPO, options=place.options)
            assert_same(weights, place.tensors)
            assert "taken from the local tier" in weights.report.evidence_reason
        place.check_published()

    def test_behind_a_link_lies_what_is_not_the_tiers(self, place: Place) -> None:
        (blob,) = (path for path in (place.local / "models--org--name/blobs").iterdir() if path.stat().st_size > MIB)
        outside = place.folder / "outside"
        blob.rename(outside)
        blob.symlink_to(outside)
        weights = fastload.load(REPO, options=place.options)
        assert "local" not in weights.report.bytes_by_tier
        assert not blob.is_symlink()
        place.check_published()
