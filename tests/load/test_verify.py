"""No wrong byte is handed out unannounced: whatever evidence there is, every flip is found, and nothing else is."""

from __future__ import annotations

import builtins
import errno
import gc
import os
import random
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

import fastload
from fastload import FormatError, IntegrityError, Options
from fastload._verify.digest import BLOCK_BYTES, SMALL_FILE_BYTES
from fastload._verify.manifest import parse_manifest
from hub_server import HubServer, Repo
from kernel_account import read_so_far
from models import MIB, assert_same
from proven_models import PLACES, READERS, REPO, Model, flip, two_large_tensors
from stored_models import COMMIT, git_sha1, write_cache, write_folder
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_right_is_proven(model: Model, kind: str, reader: str) -> None:
    weights = fastload.load(PLACES[kind](model), reader=reader)
    assert_same(weights, model.tensors)
    assert weights.report.evidence == kind
    assert weights.report.blocks_verified == 4
    assert (weights.report.blocks_reread, weights.report.blocks_repaired) == (0, 0)
    assert weights.report.busy_s["hash"] > 0


@pytest.mark.parametrize("kind", PLACES)
def test_each_of_twenty_flips_is_found(model: Model, kind: str) -> None:
    folder = PLACES[kind](model)
    chance = random.Random(kind)  # noqa: S311 - the same flips every time
    for number in range(20):
        path = chance.choice(sorted(folder.glob("*.safetensors*"))[not number :])  # shards and their index
        at = chance.randrange(path.stat().st_size) if number else 8  # the first one is in a header
        flip(path, at)
        with pytest.raises(IntegrityError) as caught:
            fastload.load(folder, reader=READERS[number % 4])
        assert caught.value.path == str(path)
        assert caught.value.exit_code == 13
        assert (str(path.resolve()) in caught.value.hint) == path.is_symlink()  # the blob
        if kind.startswith("manifest"):
            assert caught.value.offset == at // (4 * MIB) * 4 * MIB
        flip(path, at)
        assert fastload.load(folder).report.evidence == kind


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_cut_longer_or_another_shard_is_found(model: Model, kind: str) -> None:
    folder = PLACES[kind](model)
    one, two = (folder / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    whole, status = one.read_bytes(), one.stat()
    for content in (whole[:-1], whole + b"\0", two.read_bytes(), whole[: 5 * MIB] + bytes(len(whole) - 5 * MIB), b""):
        one.resolve().write_bytes(content)
        os.utime(one.resolve(), ns=(status.st_atime_ns, status.st_mtime_ns))  # else its owner has written another file
        with pytest.raises(IntegrityError):
            fastload.load(folder)
    one.resolve().write_bytes(whole)
    assert_same(fastload.load(folder), model.tensors)


def test_a_damaged_index_is_not_called_malformed(model: Model) -> None:
    folder = model.cached()
    (folder / INDEX_NAME).resolve().write_bytes(b"{")
    with pytest.raises(IntegrityError, match="git_sha1"):
        fastload.load(folder)


@pytest.mark.parametrize("lost", ["the link", "the blob"])
def test_a_file_that_is_known_and_lost_is_damage_and_warm_mends_it(model: Model, lost: str) -> None:
    folder = model.warmed()
    shard = folder / "model-00001-of-00002.safetensors"
    (shard if lost == "the link" else shard.resolve()).unlink()
    with pytest.raises(IntegrityError, match=r"no file|where nothing is") as caught:
        fastload.load(folder)
    assert (caught.value.path, caught.value.expected) == (str(shard), f"{len(model.files[shard.name]):,} bytes")
    assert "fastload warm" in caught.value.hint
    fastload.warm(REPO, options=model.options)
    assert_same(fastload.load(folder), model.tensors)


def test_a_lost_file_that_nobody_reads_explains_nothing(model: Model) -> None:
    misplaced = model.files[INDEX_NAME].replace(b"model-00002", b"model-00001", 1)
    model.files[INDEX_NAME] = misplaced  # so it was made, and so it is recorded
    folder = model.warmed()
    (folder / "config.json").unlink()
    with pytest.raises(FormatError):
        fastload.load(folder)


@pytest.mark.parametrize("kind", ["manifest", "etag"])
def test_a_file_that_may_not_be_read_explains_nothing(model: Model, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model.files[INDEX_NAME] = model.files[INDEX_NAME].replace(b"model-00002", b"model-00001", 1)
    folder = PLACES[kind](model)
    unreadable = os.path.realpath(folder / "config.json")

    def refuse(real: Callable[..., object]) -> Callable[..., object]:
        def opened(path: object, *args: object, **keywords: object) -> object:
            if isinstance(path, str) and os.path.realpath(path) == unreadable:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return real(path, *args, **keywords)

        return opened

    monkeypatch.setattr(os, "open", refuse(os.open))
    monkeypatch.setattr(builtins, "open", refuse(open))
    with pytest.raises(FormatError, match="different revisions"):
        fastload.load(folder)


def without_index(model: Model) -> None:
    """Shards that nothing but a manifest names."""
    model.files.pop(INDEX_NAME)
    for number in (1, 2):
        model.files[f"part{number}.safetensors"] = model.files.pop(f"model-0000{number}-of-00002.safetensors")


def test_a_shard_that_only_the_manifest_names_and_is_lost_is_damage(model: Model) -> None:
    without_index(model)
    folder = model.warmed()
    (folder / "part1.safetensors").unlink()
    with pytest.raises(IntegrityError, match="no file") as caught:
        fastload.load(folder)
    assert caught.value.path == str(folder / "part1.safetensors")
    assert list(fastload.load(folder / "part2.safetensors"))  # it alone was asked for


def test_an_index_that_only_the_manifest_names_and_is_lost_is_damage(model: Model) -> None:
    folder = model.warmed()
    (folder / INDEX_NAME).unlink()
    with pytest.raises(IntegrityError, match="no file") as caught:
        fastload.load(folder)
    assert caught.value.path == str(folder / INDEX_NAME)


def test_a_shard_that_the_manifest_does_not_name_is_refused(model: Model) -> None:
    without_index(model)
    folder = model.warmed()
    (folder / "part3.safetensors").write_bytes(one_tensor())
    with pytest.raises(IntegrityError, match="does not name") as caught:
        fastload.load(folder)
    assert caught.value.path == str(folder / "part3.safetensors")
    assert "--record" not in caught.value.hint  # which does not add what nobody proves
    assert list(fastload.load(folder / "part3.safetensors"))


def test_a_shard_that_another_tool_has_added_is_proven_by_the_name_of_its_blob(model: Model) -> None:
    without_index(model)
    one = dict(model.files)
    two = {"part2.safetensors": one.pop("part2.safetensors")}
    write_cache(model.shared, REPO, COMMIT, one)
    fastload.warm(REPO, options=model.options)
    folder = write_cache(model.local, REPO, COMMIT, two)
    weights = fastload.load(folder)
    assert_same(weights, model.tensors)
    assert (weights.report.evidence, weights.report.blocks_verified) == ("sha256", 4)
    flip(folder / "part2.safetensors", 5 * MIB)
    with pytest.raises(IntegrityError, match="sha256"):
        fastload.load(folder)


def test_a_header_is_proven_by_its_block_though_another_file_has_none(tmp_path: Path) -> None:
    content = two_large_tensors(tmp_path)
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    write_cache(tmp_path / "shared", REPO, COMMIT, {"model.safetensors": content})
    fastload.warm(REPO, options=options)
    folder = write_cache(tmp_path / "local", REPO, COMMIT, {"model.fp16.safetensors": content})  # by another tool
    flip(folder / "model.safetensors", content.index(b"last"))
    with pytest.raises(IntegrityError, match="block 0"):
        fastload.load(folder, tensors=lambda name: name != "first")


def test_a_stream_that_is_left_early_proves_nothing_by_a_digest_of_the_whole(model: Model) -> None:
    with fastload.stream(model.cached()) as stream:
        next(stream)
    assert stream.report.evidence == "none"
    assert "left before the end of a file" in stream.report.evidence_reason
    with fastload.stream(model.warmed()) as stream:
        next(stream)
    assert stream.report.evidence == "manifest"


def test_what_the_hint_says_mends_content_that_kept_its_size(model: Model) -> None:
    folder = model.warmed()
    shard = folder / "model-00001-of-00002.safetensors"
    flip(shard, 5 * MIB)
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(REPO, options=model.options)
    assert "--repair" in caught.value.hint and "fastload rm" in caught.value.hint
    fastload.remove(REPO, options=model.options)
    fastload.warm(REPO, options=model.options)
    assert shard.read_bytes() == model.files[shard.name]


def test_a_part_is_proven_by_blocks_and_else_called_unproven(model: Model) -> None:
    part = fastload.load(model.warmed(), tensors="1.0")
    assert (part.report.evidence, part.report.blocks_verified) == ("manifest", 1)
    other = fastload.load(model.downloaded(), tensors="1.0")
    assert (other.report.evidence, other.report.blocks_verified) == ("none", 0)


def test_require_is_an_error_where_there_is_nothing_or_not_enough(model: Model) -> None:
    plain = write_folder(model.local.parent / "bare", model.files)
    assert fastload.load(plain).report.evidence == "none"
    with pytest.raises(IntegrityError, match="nothing is known"):
        fastload.load(plain, verify="require")
    with pytest.raises(IntegrityError, match="only a part"):
        fastload.load(model.downloaded(), tensors="1.0", verify="require")
    assert fastload.load(model.warmed(), verify="require").report.evidence == "manifest"


def test_off_looks_at_nothing(model: Model) -> None:
    folder = model.warmed()
    flip(folder / "model-00001-of-00002.safetensors", 5 * MIB)
    weights = fastload.load(folder, verify="off")
    assert (weights.report.evidence, weights.report.blocks_verified) == ("none", 0)


def test_a_stream_hands_out_nothing_of_a_block_that_is_wrong(model: Model) -> None:
    folder = model.warmed()
    flip(folder / "model-00002-of-00002.safetensors", 5 * MIB)
    names: list[str] = []
    with pytest.raises(IntegrityError):
        names.extend(name for name, tensor in fastload.stream(folder) if torch.equal(tensor, model.tensors[name]))
    assert names == list(model.tensors)[: len(names)]
    assert "2.4" not in names


def test_a_stream_by_a_digest_of_the_whole_raises_at_the_files_end(model: Model) -> None:
    folder = model.cached()
    flip(folder / "model-00002-of-00002.safetensors", 5 * MIB)
    with pytest.raises(IntegrityError):
        for _ in fastload.stream(folder):
            pass


@pytest.mark.parametrize("place", [Model.cached, Model.downloaded])
def test_a_stream_that_must_be_proven_hands_nothing_out_before_it_is(
    model: Model, place: Callable[[Model], Path]
) -> None:
    folder = place(model)
    fastload.load(folder)  # what is imported for it is read from files, too
    before = read_so_far()
    with fastload.stream(folder, verify="require") as stream:
        assert_same(dict(stream), model.tensors)
    beside = read_so_far() - before - stream.report.bytes_read  # settings, and what is read beyond unproven headers
    assert 0 <= beside < MIB
    assert (stream.report.evidence, stream.report.blocks_verified) != ("none", 0)
    shard = folder / "model-00001-of-00002.safetensors"
    flip(shard, shard.stat().st_size - 1)
    taken: list[str] = []
    with pytest.raises(IntegrityError, match="sha256"):
        taken.extend(name for name, _ in fastload.stream(folder, verify="require"))
    assert taken == []
    with pytest.raises(IntegrityError, match="only a part"):
        fastload.stream(folder, verify="require", tensors="1.0")


def test_a_stream_from_the_hub_that_must_be_proven_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = Options(local=str(model.local), write_through="off")
        with pytest.raises(IntegrityError, match="fastload warm"):
            fastload.stream(REPO, verify="require", options=options)
        assert fastload.load(REPO, verify="require", options=options).report.evidence == "listing"


def test_load_into_is_proven_before_it_returns(model: Model) -> None:
    folder = model.cached()
    module = torch.nn.Module()
    for name, tensor in model.tensors.items():
        module.register_buffer(name.replace(".", "_"), torch.zeros_like(tensor))
    flip(folder / "model-00002-of-00002.safetensors", 5 * MIB)
    named = torch.nn.Module()
    named.add_module("1", torch.nn.Module())
    named.add_module("2", torch.nn.Module())
    for name, tensor in model.tensors.items():
        getattr(named, name[0]).register_buffer(name[2:], torch.zeros_like(tensor))
    with pytest.raises(IntegrityError):
        fastload.load_into(named, folder)


@pytest.mark.parametrize("is_header", [True, False])
@pytest.mark.parametrize("reader", ["buffered", "direct"])
def test_a_flip_on_the_way_is_healed_by_a_second_read(
    model: Model, reader: str, monkeypatch: pytest.MonkeyPatch, *, is_header: bool
) -> None:
    """In the block around a header, which is read in pieces, or in what is loaded."""
    folder = model.warmed()
    real = os.preadv
    flipped: list[int] = []

    def once(descriptor: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        count = real(descriptor, buffers, offset, *flags)
        is_wanted = (0 < offset < BLOCK_BYTES) is is_header and count > 3 * MIB // 4
        if not flipped and offset and is_wanted:
            buffers[0][0] ^= 1
            flipped.append(offset)
        return count

    monkeypatch.setattr(os, "preadv", once)
    weights = fastload.load(folder, reader=reader, tensors="1.4")
    assert_same(weights, {"1.4": model.tensors["1.4"]})
    assert (weights.report.blocks_reread, weights.report.blocks_repaired) == (1, 0)


@pytest.mark.usefixtures("leaks_nothing")
@pytest.mark.parametrize("kind", PLACES)
def test_a_load_that_fails_the_proof_leaves_nothing_behind(model: Model, kind: str) -> None:
    folder = PLACES[kind](model)
    flip(folder / "model-00001-of-00002.safetensors", 2 * MIB)
    for reader in READERS:
        with pytest.raises(IntegrityError):
            fastload.load(folder, reader=reader)
    gc.collect()  # the error's traceback holds the mappings, and Python's mappings a descriptor each


def test_the_first_load_by_whole_digests_leaves_a_manifest_for_the_next(model: Model) -> None:
    snapshot = model.cached()
    first = fastload.load(REPO, options=model.options)
    assert (first.report.evidence, first.report.stages["publish"] > 0) == ("sha256", True)
    second = fastload.load(REPO, options=model.options)
    assert second.report.evidence == "manifest"
    assert_same(second, model.tensors)
    path = snapshot.parent.parent / ".fastload/manifests" / f"{COMMIT}.json"
    manifest = parse_manifest(path.read_bytes(), path=str(path))
    assert (manifest.source, [file.path for file in manifest.files]) == ("local", sorted(model.files))
    flip(snapshot / "model-00001-of-00002.safetensors", 5 * MIB)
    with pytest.raises(IntegrityError, match="block 1"):
        fastload.load(REPO, options=model.options)


def test_no_manifest_is_left_of_a_part_nor_where_something_else_is_damaged(model: Model) -> None:
    snapshot = model.cached()
    fastload.load(REPO, tensors="1.*", options=model.options)
    flip(snapshot / "config.json", 0)
    assert fastload.load(REPO, options=model.options).report.evidence == "sha256"
    assert not (snapshot.parent.parent / ".fastload/manifests").exists()


def test_a_damaged_block_is_mended_from_another_tier_and_for_good(model: Model) -> None:
    snapshot = model.warmed()
    shard = snapshot / "model-00001-of-00002.safetensors"
    before = os.stat(shard).st_ino
    flip(shard, 5 * MIB)
    flip(shard, 9)  # in the header, which is proven before it is believed
    weights = fastload.load(REPO, options=model.options)
    assert_same(weights, model.tensors)
    assert weights.report.tier == "local"
    assert weights.report.blocks_repaired >= 2
    assert shard.read_bytes() == model.files[shard.name]
    assert os.stat(shard).st_ino != before
    assert not os.listdir(snapshot.parent.parent / ".fastload/staging")
    assert fastload.load(REPO, options=model.options).report.blocks_reread == 0


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_delivers_what_was_mended(model: Model, reader: str) -> None:
    shard = model.warmed() / "model-00002-of-00002.safetensors"
    flip(shard, 3 * MIB)
    assert_same(fastload.load(REPO, reader=reader, options=model.options), model.tensors)


def test_a_better_source_that_is_damaged_too_is_none(model: Model) -> None:
    shard = model.warmed() / "model-00001-of-00002.safetensors"
    flip(shard, 5 * MIB)
    other = model.shared / "models--org--name" / "snapshots" / COMMIT / shard.name
    flip(other, 5 * MIB)
    with pytest.raises(IntegrityError, match="block 1"):
        fastload.load(REPO, options=model.options)


def test_a_copy_that_may_not_be_written_stays_and_what_is_delivered_is_right(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shard = model.warmed() / "model-00001-of-00002.safetensors"
    flip(shard, 5 * MIB)

    blob, replace = str(shard.resolve()), os.replace

    def refuse(made: str, path: str) -> None:
        if path == blob:
            raise PermissionError(13, "Permission denied")
        replace(made, path)

    monkeypatch.setattr(os, "replace", refuse)
    assert_same(fastload.load(REPO, options=model.options), model.tensors)
    assert "stays damaged" in caplog.text
    assert shard.read_bytes() != model.files[shard.name]
    assert os.listdir(model.local / "models--org--name/.fastload/staging") == []


def test_a_block_comes_from_the_hub_where_no_folder_has_it(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = Options(local=str(model.local))
        shard = os.path.join(fastload.warm(REPO, options=options).path, "model-00001-of-00002.safetensors")
        flip(Path(shard), 5 * MIB)
        served = hub.served_bytes("safetensors")
        weights = fastload.load(REPO, options=options)
        assert weights.report.blocks_repaired == 1
        assert hub.served_bytes("safetensors") - served <= 4 * MIB
    assert_same(weights, model.tensors)


def test_a_folder_that_says_nothing_of_its_files_is_not_even_listed(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_folder(model.local.parent / "bare", model.files)

    def refuse(folder: str) -> None:
        raise AssertionError(folder)

    monkeypatch.setattr("fastload._store.folder_offer.list_files", refuse)
    assert_same(fastload.load(plain), model.tensors)


@pytest.mark.parametrize(("verify", "count"), [("auto", 1), ("off", 2)])
def test_no_more_threads_digest_a_mapping_than_there_are_cpus(
    model: Model, verify: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    folder = model.warmed()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr("fastload._cgroup._MEMBERSHIP", os.devnull)  # no quota, whatever this machine has
    monkeypatch.setattr(threading.Thread, "start", note)
    fastload.load(folder, reader="mmap", verify=verify)
    assert started == ["fastload-within", *(f"fastload-{number}" for number in range(count))]


def test_weights_that_git_itself_holds_are_proven_by_its_sha1(model: Model, tmp_path: Path) -> None:
    """Small ones need not be in LFS; then the blob is called by git's digest."""
    content = one_tensor()
    snapshot = tmp_path / "models--org--name/snapshots" / COMMIT
    blob = tmp_path / "models--org--name/blobs" / git_sha1(content)
    for path in (snapshot, blob.parent):
        path.mkdir(parents=True)
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    assert fastload.load(snapshot, verify="require").report.evidence == "git-sha1"
    found = fastload.verify(snapshot)
    assert (found.evidence, found.files[0].evidence) == ("git-sha1", "git-sha1")
    flip(blob, len(content) - 1)
    with pytest.raises(IntegrityError, match="git_sha1"):
        fastload.load(snapshot)


@pytest.mark.parametrize("way", ["load", "stream", "verify", "warm"])
def test_so_are_those_that_are_larger_than_what_git_usually_holds(tmp_path: Path, way: str) -> None:
    """Nothing else is known of them, and a digest that is not taken proves nothing."""
    save_file({"w": torch.arange(SMALL_FILE_BYTES // 8 + 1000, dtype=torch.int64)}, tmp_path / "made.safetensors")
    content = (tmp_path / "made.safetensors").read_bytes()
    snapshot = tmp_path / "models--org--name/snapshots" / COMMIT
    blob = tmp_path / "models--org--name/blobs" / git_sha1(content)
    for path in (snapshot, blob.parent):
        path.mkdir(parents=True)
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))

    def run() -> None:
        if way == "load":
            assert fastload.load(snapshot, verify="require").report.evidence == "git-sha1"
        elif way == "stream":
            dict(fastload.stream(snapshot, verify="require"))
        elif way == "warm":
            shutil.rmtree(tmp_path / "local", ignore_errors=True)
            options = Options(local=str(tmp_path / "local"), shared=str(tmp_path), tiers=("local", "shared"))
            fastload.warm(f"org/name@{COMMIT}", options=options)
        else:
            fastload.verify(snapshot).check()

    run()
    run()  # by the manifest that it may have left
    for manifest in (tmp_path / "models--org--name").glob(".fastload/manifests/*"):
        manifest.unlink()
    flip(blob, len(content) - 1)
    with pytest.raises(IntegrityError, match="git_sha1"):
        run()


def test_the_manifest_of_a_first_load_leaves_out_what_no_load_reads(model: Model) -> None:
    """Reading that would cost more than the load, and if it is damaged there would be no manifest ever."""
    unread = {"original/consolidated.00.pth": b"pickled" * 1000, "pytorch_model.bin": b"too" * 1000}
    folder = write_cache(model.local, REPO, COMMIT, {**model.files, **unread})
    (folder / "pytorch_model.bin").resolve().write_bytes(b"bad" * 1000)
    assert fastload.load(folder).report.evidence == "sha256"
    fastload.load(REPO, options=model.options)
    path = folder.parent.parent / ".fastload/manifests" / f"{COMMIT}.json"
    named = parse_manifest(path.read_bytes(), path=str(path)).files
    assert {file.path for file in named} == model.files.keys()
    assert fastload.load(REPO, options=model.options).report.evidence == "manifest"
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(REPO, options=model.options)
    assert [finding.path for finding in caught.value.findings] == ["pytorch_model.bin"]
