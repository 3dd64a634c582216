"""What a report says was read is what was read: counted beside, at the system's calls and at the hub's end."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

import fastload
import ranks
from fastload import Options
from fastload._read.pread import BufferedReader
from fastload._store.admit.staged import StagedFile
from fastload.errors import StoreError
from hub_server import HubServer, Repo
from models import MIB, assert_same, random_tensor
from proven_models import REPO, Model, flip
from rank_workers import workers_of
from stored_models import COMMIT, write_cache
from tier_account import really_read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastload.report import Report

SHARD, OTHER = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
BLOCK = 4 * MIB
LATER = 5 * MIB


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


@pytest.fixture
def hub(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({REPO: Repo(model.files)}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


SETTINGS = 8192
"""At most so much is read of a tier that no report counts: its index, and headers that say whether it is whole."""


def header_bytes(model: Model, name: str = SHARD) -> int:
    return 8 + int.from_bytes(model.files[name][:8], "little")


def check(report: Report, real: Counter[str], *, own: str) -> None:
    """The whole of it was read by this process from where it serves, but for what is said of other tiers."""
    check_tiers(report, real)
    assert report.bytes_read == report.bytes_by_tier[own]


def check_tiers(report: Report, real: Counter[str]) -> None:
    assert report.bytes_by_tier.keys() == {tier for tier, nbytes in real.items() if nbytes > SETTINGS}
    beside = {tier: real[tier] - nbytes for tier, nbytes in report.bytes_by_tier.items()}
    assert all(0 <= nbytes <= SETTINGS for nbytes in beside.values()), beside


def roots(model: Model) -> dict[str, Path]:
    return {"local": model.local, f"shared:{model.shared}": model.shared}


def shared(model: Model) -> str:
    return f"shared:{model.shared}"


@pytest.mark.parametrize("reader", ["buffered", "direct", "auto"])
@pytest.mark.parametrize("tensors", [None, "1.0"])
def test_a_load_of_all_and_of_a_part(model: Model, reader: str, tensors: str | None) -> None:
    model.warmed()
    options = replace(model.options, reader=reader)
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.load(REPO, tensors=tensors, options=options).report
    check(report, real, own="local")


@pytest.mark.parametrize("reader", ["buffered", "direct"])
def test_a_part_that_nothing_proves(model: Model, reader: str) -> None:
    """Its extents begin and end where tensors do, or where pages do that may be read past the page cache."""
    model.cached()
    options = replace(model.options, reader=reader)
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.load(REPO, tensors=["1.0", "1.3"], options=options).report
    assert report.evidence == "none"
    check(report, real, own="local")


def test_a_flip_that_a_second_read_heals(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model.warmed()
    real_preadv, flipped = os.preadv, [0]

    def once(descriptor: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        count = real_preadv(descriptor, buffers, offset, *flags)
        is_it = os.readlink(f"/proc/self/fd/{descriptor}") == str((folder / SHARD).resolve())
        if is_it and not flipped[0] and offset <= LATER < offset + count:
            next(buffer for buffer in reversed(buffers) if len(buffer))[-1] ^= 1
            flipped[0] += 1
        return count

    monkeypatch.setattr(os, "preadv", once)
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.load(REPO, options=replace(model.options, reader="buffered")).report
    assert (flipped, report.blocks_reread, report.blocks_repaired) == ([1], 1, 0)
    check(report, real, own="local")


@pytest.mark.parametrize("reader", ["buffered", "direct"])
@pytest.mark.parametrize("at", [0, LATER // 4096 * 4096], ids=["header", "later"])
def test_a_sector_that_cannot_be_read(model: Model, monkeypatch: pytest.MonkeyPatch, reader: str, at: int) -> None:
    """What came before it counts, and nothing that did not come."""
    blob = str((model.warmed() / SHARD).resolve())
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        preadv = os.preadv

        def failing(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
            if os.readlink(f"/proc/self/fd/{descriptor}") != blob or offset + sum(map(len, buffers)) <= at:
                return preadv(descriptor, buffers, offset, flags)
            if offset < at:
                return preadv(descriptor, [buffers[0][: at - offset]], offset, flags)
            if offset < at + 4096:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return preadv(descriptor, buffers, offset, flags)

        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", failing)
            report = fastload.load(REPO, options=replace(model.options, reader=reader)).report
    assert report.blocks_repaired
    check(report, real, own="local")


@pytest.mark.parametrize("at", [9, LATER])
def test_a_block_that_the_next_tier_mends(model: Model, at: int) -> None:
    folder = model.warmed()
    flip(folder / SHARD, at)
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.load(REPO, options=model.options).report
    assert report.blocks_repaired and real[shared(model)]
    check(report, real, own="local")


def test_a_file_that_is_brought_again(model: Model) -> None:
    folder = model.warmed()
    (folder / SHARD).resolve().unlink()
    (folder / SHARD).unlink()
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.load(REPO, options=model.options).report
    assert report.bytes_by_tier[shared(model)] == len(model.files[SHARD])
    assert len(model.files[SHARD]) <= real[shared(model)] <= len(model.files[SHARD]) + SETTINGS
    assert report.bytes_by_tier["local"] == report.bytes_read


def test_a_digest_of_the_whole_and_the_manifest_that_is_left(model: Model) -> None:
    model.cached()
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.load(REPO, options=model.options).report
    assert report.evidence == "sha256"
    check(report, real, own="local")


@pytest.mark.parametrize("reader", ["buffered", "direct", "mmap"])
def test_a_header_of_more_than_a_block_below_a_digest_of_the_whole(model: Model, reader: str) -> None:
    """Nothing but the digest needs the block that has the header alone."""
    content = {"t": random_tensor(5 * MIB, 7, torch.uint8)}
    save_file(content, model.local.parent / "large", metadata={"long": "x" * 5 * MIB})
    files = {"model.safetensors": (model.local.parent / "large").read_bytes()}
    folder = write_cache(model.shared, REPO, COMMIT, files)
    with really_read({"path": model.shared}) as real:
        report = fastload.load(folder, reader=reader).report
    assert report.evidence == "sha256"
    check(report, real, own="path")


def test_a_header_of_more_than_a_block_that_is_here(model: Model) -> None:
    """What nobody but the digest of the whole needs is taken from here, too."""
    content = {"t": random_tensor(5 * MIB, 7, torch.uint8)}
    save_file(content, model.local.parent / "large", metadata={"long": "x" * 5 * MIB})
    shard = {"model.safetensors": (model.local.parent / "large").read_bytes()}
    write_cache(model.shared, REPO, COMMIT, shard | {"config.json": b"{}"})
    write_cache(model.local, REPO, COMMIT, shard)
    (model.local / "models--org--name/refs/main").unlink()
    report = fastload.load(REPO, options=replace(model.options, write_through="on")).report
    assert report.tier == shared(model)
    again = BLOCK  # once more for the copy: it was not put, since nobody loads it
    assert report.bytes_by_tier["local"] == len(shard["model.safetensors"]) + again


@pytest.mark.parametrize("others", [True, False], ids=["mended", "elsewhere"])
def test_a_load_that_begins_once_more(model: Model, *, others: bool) -> None:
    where = model.local if others else model.shared
    folder = write_cache(where, REPO, COMMIT, model.files)
    better = model.shared if others else model.local.parent / "second"
    write_cache(better, REPO, COMMIT, model.files)
    flip(folder / SHARD, LATER)
    both = str(model.shared) if others else f"{model.shared}:{better}"
    options = replace(model.options, shared=both, write_through="off")
    tiers = roots(model) | {f"shared:{better}": better}
    with really_read(tiers, beyond=header_bytes(model)) as real:
        weights = fastload.load(REPO, options=options)
    assert_same(weights, model.tensors)
    report = weights.report
    check_tiers(report, real)
    assert report.bytes_read == (report.bytes_by_tier["local"] if others else sum(report.bytes_by_tier.values()))


def test_a_stream_that_proves_whole_files_first(model: Model) -> None:
    folder = model.cached()
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        stream = fastload.stream(REPO, verify="require", options=model.options)
        assert_same(dict(stream), model.tensors)
    assert folder.exists()
    check(stream.report, real, own="local")


def test_a_stream_that_is_closed_early(tmp_path: Path) -> None:
    save_file({f"t.{n}": random_tensor(8 * MIB, n, torch.uint8) for n in range(16)}, tmp_path / "model.safetensors")
    fastload.verify(tmp_path, record=True)
    options = Options(staging_bytes="16Mi", reader="buffered")
    with really_read({"path": tmp_path}) as real:
        stream = fastload.stream(tmp_path, options=options)
        next(stream)
        stream.close()
    assert real["path"] < 16 * 8 * MIB
    check(stream.report, real, own="path")


def test_a_load_that_keeps_a_copy_counts_what_only_the_copy_needs(model: Model) -> None:
    vocabulary = {"tokenizer.json": bytes(MIB)}
    write_cache(model.shared, REPO, COMMIT, model.files | vocabulary)
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.load(REPO, options=model.options).report
    assert (model.local / "models--org--name/snapshots" / COMMIT / "tokenizer.json").exists(), "it was kept"
    check(report, Counter({shared(model): real[shared(model)]}), own=shared(model))


def test_a_load_that_keeps_a_copy_counts_what_is_here_of_what_only_the_copy_needs(model: Model) -> None:
    vocabulary = {"tokenizer.json": bytes(8 * MIB)}
    write_cache(model.shared, REPO, COMMIT, model.files | vocabulary)
    write_cache(model.local, REPO, COMMIT, vocabulary)
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.load(REPO, options=model.options).report
    assert (model.local / "models--org--name/snapshots" / COMMIT / SHARD).exists(), "it was kept"
    assert report.bytes_by_tier["local"] == 8 * MIB, "and nothing that the load put there itself"
    check(report, Counter(real | {"local": 8 * MIB}), own=shared(model))


def test_a_copy_that_is_dropped(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was here of it is taken all the same."""
    fastload.verify(write_cache(model.shared, REPO, COMMIT, model.files), record=True)
    options = replace(model.options, write_through="on")
    fastload.load(REPO, tensors=["2.*"], options=options)

    def put(*_: object) -> bool:
        raise StoreError("staging", "No space left on device")

    monkeypatch.setattr(StagedFile, "put", put)
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        weights = fastload.load(REPO, options=options)
    assert_same(weights, model.tensors)
    assert weights.report.bytes_by_tier["local"] == len(model.files[OTHER])
    check(weights.report, real, own=shared(model))


def test_a_load_that_goes_on_with_what_was_staged(model: Model, hub: HubServer) -> None:
    options = Options(local=str(model.local), tiers=("local", "hub"))
    for _ in range(2):  # the first one leaves what it has of one shard; the second needs all
        before = hub.served_bytes("resolve") + hub.served_bytes("cdn")
        report = fastload.load(REPO, tensors=None if hub.asked("*", path=OTHER) else "1.*", options=options).report
        served = hub.served_bytes("resolve") + hub.served_bytes("cdn") - before
        assert report.bytes_by_tier["hub"] == report.bytes_read
        assert 0 <= served - report.bytes_read <= SETTINGS
    assert report.bytes_by_tier["local"] > 0


def test_staged_bytes_that_are_wrong_are_not_the_mounts(model: Model) -> None:
    """What was left here of a block is read here, and only the block that replaces it is read from the mount."""
    write_cache(model.shared, REPO, COMMIT, model.files)
    fastload.verify(model.shared / f"models--org--name/snapshots/{COMMIT}", record=True)
    write_cache(model.local, REPO, COMMIT, {SHARD: model.files[SHARD]})
    blob = (model.local / f"models--org--name/snapshots/{COMMIT}" / SHARD).resolve()
    flip(blob, LATER)
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        weights = fastload.load(REPO, options=model.options)
    assert_same(weights, model.tensors)
    assert weights.report.tier == shared(model)
    assert weights.report.blocks_reread == 1
    assert weights.report.bytes_by_tier[shared(model)] == weights.report.bytes_read
    assert 0 <= real[shared(model)] - weights.report.bytes_read <= SETTINGS


def test_a_group_of_two(model: Model) -> None:
    for folder in (model.downloaded(), model.recorded()):
        with workers_of(2) as workers:
            watched = workers.call(ranks.stream_and_watch, str(folder))
        for report, read in watched:
            beside = 2 * (256 << 10) + MIB // 4  # beyond unproven headers; settings, what the system says of itself
            assert 0 <= read - report.bytes_read < beside
        group = watched[0][0].group
        assert group is not None
        assert [each.bytes_read for each in group.ranks] == [report.bytes_read for report, _ in watched]


def test_a_warm_from_a_mount_and_one_that_goes_on(model: Model) -> None:
    write_cache(model.shared, REPO, COMMIT, model.files)
    everything = sum(map(len, model.files.values()))
    write_cache(model.local, REPO, COMMIT, {SHARD: model.files[SHARD]})
    with really_read(roots(model), beyond=header_bytes(model)) as real:
        report = fastload.warm(REPO, options=model.options).report
    assert report is not None
    assert report.bytes_read == everything - len(model.files[SHARD])
    assert 0 <= real[shared(model)] - report.bytes_read <= SETTINGS
    assert report.bytes_by_tier == {shared(model): report.bytes_read, "local": len(model.files[SHARD])}


def test_a_warm_from_the_hub(model: Model, hub: HubServer) -> None:
    report = fastload.warm(REPO, options=Options(local=str(model.local), tiers=("local", "hub"))).report
    assert report is not None
    assert report.bytes_read == report.bytes_by_tier["hub"] == sum(map(len, model.files.values()))
    assert report.bytes_read == hub.served_bytes("resolve") + hub.served_bytes("cdn")


def test_a_warm_whose_first_source_is_wrong(model: Model) -> None:
    """It brings what is right of that, fetches again what is not, and then asks the next one."""
    folder = write_cache(model.shared, REPO, COMMIT, model.files)
    second = model.local.parent / "second"
    write_cache(second, REPO, COMMIT, model.files)
    flip(folder / SHARD, LATER)
    options = replace(model.options, shared=f"{model.shared}:{second}")
    tiers = {shared(model): model.shared, f"shared:{second}": second}
    with really_read(tiers, beyond=header_bytes(model)) as real:
        report = fastload.warm(REPO, options=options).report
    assert report is not None
    assert report.tier == f"shared:{second}"
    here_bytes = report.bytes_by_tier.pop("local")
    check_tiers(report, real)
    assert report.bytes_read == sum(report.bytes_by_tier.values())
    right = sum(len(content) for name, content in model.files.items() if name != SHARD)
    assert here_bytes == right, "what came well of the first one is not brought again"
    assert report.peak_staging_bytes <= report.bytes_by_tier[report.tier]


def test_a_load_of_a_part_that_begins_once_more_publishes_nothing(model: Model) -> None:
    """What the first try had wrong is nothing that the second has to mend."""
    folder = write_cache(model.shared, REPO, COMMIT, model.files)
    second = model.local.parent / "second"
    write_cache(second, REPO, COMMIT, model.files)
    flip(folder / SHARD, LATER)
    options = replace(model.options, shared=f"{model.shared}:{second}", write_through="off")
    report = fastload.load(REPO, tensors="1.*", options=options).report
    assert report.blocks_repaired
    assert report.stages["publish"] == 0


def test_a_warm_was_busy_with_all_of_its_sources(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its stages and its bytes are those of all."""
    folder = write_cache(model.shared, REPO, COMMIT, model.files)
    second = model.local.parent / "second"
    write_cache(second, REPO, COMMIT, model.files)
    flip(folder / SHARD, LATER)
    read_into, slept = BufferedReader.read_into, list[float]()

    def slowly(reader: BufferedReader, offset: int, buffers: list[memoryview]) -> None:
        if reader._file.path.startswith(f"{model.shared}/"):
            time.sleep(0.05)
            slept.append(0.05)
        read_into(reader, offset, buffers)

    monkeypatch.setattr(BufferedReader, "read_into", slowly)
    report = fastload.warm(REPO, options=replace(model.options, shared=f"{model.shared}:{second}")).report
    assert report is not None
    assert report.tier == f"shared:{second}"
    assert report.busy_s["read"] >= sum(slept) > 0
