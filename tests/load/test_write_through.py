"""A load from a lower tier leaves a whole copy on the local one, or none, and reads nothing twice."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

import fastload
from fastload import Options
from fastload._fetch.checkpoint import home
from fastload._store.lease.holder import parse_holder
from fastload._verify.manifest import parse_manifest
from hub_faults import WrongBytes, too_many_requests
from hub_server import HubServer, Repo
from models import MIB, assert_same, save_large, save_sharded
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"


class Place:
    """A local tier, and a shared one that holds a model of three shards."""

    def __init__(self, folder: Path) -> None:
        self.local, self.shared, self.model = folder / "local", folder / "shared", folder / "made"
        self.model.mkdir()
        self.tensors = {f"layer.{n}": torch.arange(n, n + 3 * MIB // 8, dtype=torch.int64) for n in range(3)}
        save_sharded(
            self.model,
            {f"model-0000{n + 1}-of-00003.safetensors": {f"layer.{n}": t} for n, t in enumerate(self.tensors.values())},
        )
        (self.model / "config.json").write_text("{}")
        (self.model / "tokenizer.json").write_text("{}")
        self.files = {path.name: path.read_bytes() for path in self.model.iterdir()}

    def share(self) -> None:
        write_cache(self.shared, REPO, COMMIT, self.files)

    @property
    def options(self) -> Options:
        return Options(local=str(self.local), shared=str(self.shared), tiers=("local", "shared"))

    def published(self) -> set[str]:
        """The files of the snapshot on the local tier."""
        snapshots = self.local / "models--org--name" / "snapshots"
        return {path.name for path in snapshots.glob("*/*")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_loaded_from_a_mount_is_local_the_next_time(place: Place) -> None:
    place.share()
    weights = fastload.load(REPO, options=place.options)
    assert_same(weights, place.tensors)
    assert weights.report.tier == f"shared:{place.shared}"
    assert weights.report.stages["publish"] > 0
    assert place.published() == place.files.keys()
    again = fastload.load(REPO, options=place.options)
    assert again.report.tier == "local"
    assert (again.report.commit, again.report.commit_learnt) == (COMMIT, "local")
    assert_same(again, place.tensors)


def test_the_copy_is_what_warm_would_have_made(place: Place, tmp_path: Path) -> None:
    place.share()
    fastload.load(REPO, options=place.options)
    warmed = Options(local=str(tmp_path / "warmed"), shared=str(place.shared), tiers=("local", "shared"))
    fastload.warm(REPO, options=warmed)
    inside = f"models--org--name/.fastload/manifests/{COMMIT}.json"
    raw = [(root / inside).read_bytes() for root in (place.local, tmp_path / "warmed")]
    assert raw[0] == raw[1]
    parse_manifest(raw[0], path=inside)
    assert not os.listdir(place.local / "models--org--name/.fastload/staging")


def test_a_component_whose_weights_are_torchs_is_in_the_copy(place: Place) -> None:
    """A host that finds the copy reads them itself, or goes on without them where they are not there."""
    dense = {"2_Dense/config.json": b"{}", "2_Dense/pytorch_model.bin": b"pickled"}
    place.files |= {**dense, "modules.json": b"[]", "mask_embedding.pt": b"pickled"}
    place.share()
    fastload.load(REPO, options=place.options)
    found = fastload.resolve(REPO, options=place.options)
    assert found.tier == "local"
    assert {name for name in place.files if os.path.exists(os.path.join(found.path, name))} == place.files.keys()


@pytest.mark.parametrize("reader", ["direct", "buffered", "mmap"])
def test_every_reader_feeds_the_copy(place: Place, reader: str) -> None:
    place.share()
    fastload.load(REPO, reader=reader, options=place.options)
    assert place.published() == place.files.keys()


def test_a_stream_publishes_at_its_end_and_not_before(place: Place) -> None:
    place.share()
    with fastload.stream(REPO, options=place.options) as stream:
        next(stream)
    assert place.published() == set()
    for _ in fastload.stream(REPO, options=place.options):
        assert place.published() == set()
    assert place.published() == place.files.keys()


def test_a_part_of_a_model_is_never_published_but_not_read_again_either(place: Place) -> None:
    place.share()
    fastload.load(REPO, tensors="layer.0", options=place.options)
    assert place.published() == set()
    journals = os.listdir(place.local / "models--org--name/.fastload/journals")
    assert journals
    fastload.load(REPO, options=place.options)
    assert place.published() == place.files.keys()


def test_a_few_weights_in_a_folder_of_their_own_are_brought_with_the_rest(place: Place) -> None:
    """As of the dense layer of a sentence-transformers model, which vLLM reads past the loader."""
    dense = place.model / "dense.safetensors"
    save_file({"linear.weight": torch.zeros(MIB // 4)}, dense)
    place.files["2_Dense/model.safetensors"] = dense.read_bytes()
    place.share()
    fastload.load(REPO, options=place.options)
    assert place.published() == {name.partition("/")[0] for name in place.files}


def test_a_component_does_not_bring_the_others(place: Place) -> None:
    place.files |= {f"tower/{name}": content for name, content in place.files.items()}
    place.share()
    fastload.load(REPO, subfolder="tower", options=place.options)
    assert place.published() == set()


def test_nothing_is_kept_of_a_path_nor_where_local_was_not_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.share()
    fastload.load(place.model, options=place.options)
    assert not place.local.exists()
    monkeypatch.setenv("HF_HUB_CACHE", str(place.local))
    unnamed = Options(shared=str(place.shared), tiers=("local", "shared"))
    fastload.load(REPO, options=unnamed)
    assert not place.local.exists()
    fastload.load(REPO, options=Options(shared=str(place.shared), tiers=("local", "shared"), write_through="on"))
    assert place.published() == place.files.keys()


def test_write_through_can_be_turned_off(place: Place) -> None:
    place.share()
    options = Options(local=str(place.local), shared=str(place.shared), tiers=("local", "shared"), write_through="off")
    fastload.load(REPO, options=options)
    assert not place.local.exists()


def test_without_room_the_copy_is_dropped_and_the_load_goes_on(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.share()
    options = Options(local=str(place.local), shared=str(place.shared), tiers=("local", "shared"), min_free="100%")
    with caplog.at_level(logging.WARNING, logger="fastload"):
        assert_same(fastload.load(REPO, options=options), place.tensors)
    assert "not kept" in caplog.text
    assert place.published() == set()
    assert not [path for path in place.local.iterdir() if path.name.startswith("models--")], "a repo of nothing"


def test_a_disk_that_fails_meanwhile_ends_the_copy_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.share()
    real = os.pwrite

    def full(descriptor: int, content: memoryview, offset: int) -> int:
        if offset:
            raise OSError(28, "No space left on device")
        return real(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", full)
    save_large(place.model, tensors=3)  # two blocks at least
    write_cache(
        place.shared, "org/large", COMMIT, {"model.safetensors": (place.model / "model.safetensors").read_bytes()}
    )
    with caplog.at_level(logging.WARNING, logger="fastload"):
        weights = fastload.load("org/large", options=place.options)
    assert sum(tensor.nbytes for tensor in weights.values()) == 12 * MIB
    assert "no space left" in caplog.text
    assert not list((place.local / "models--org--large/snapshots").iterdir())


@pytest.mark.parametrize("has_blob", [False, True])
def test_its_lease_says_how_far_the_load_is(place: Place, *, has_blob: bool) -> None:
    """Else a ``warm`` that waits for it takes a load that is long for one that hangs."""
    save_large(place.model, tensors=8)
    files = {"model-00001-of-00002.safetensors": (place.model / "model.safetensors").read_bytes()}
    save_file({"last": torch.ones(MIB)}, place.model / "last.safetensors")
    files["model-00002-of-00002.safetensors"] = (place.model / "last.safetensors").read_bytes()
    write_cache(place.shared, "org/large", COMMIT, files)
    snapshot = place.local / "models--org--large/snapshots" / COMMIT
    if has_blob:  # of which nothing is copied
        last = list(files)[-1]
        write_cache(place.local, "org/large", COMMIT, {last: files[last]})
        (snapshot / last).unlink()
    told: list[tuple[int, int]] = []
    record = place.local / ".locks/fastload/org--large.lease"

    def look(_: int, __: int) -> None:
        with suppress(FileNotFoundError):
            holder = parse_holder(record.read_bytes(), path=str(record))
            told.append((holder.done_bytes, holder.total_bytes))

    options = replace(place.options, max_rate="6Mi")
    fastload.load("org/large", options=options, progress=look)
    assert len({done for done, _ in told}) > 2, told
    assert told[-1][1] >= 36 * MIB
    assert {path.name for path in snapshot.iterdir()} == files.keys()


@pytest.mark.usefixtures("leaks_nothing")
def test_a_load_from_the_hub_reads_it_once_and_keeps_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(place.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = Options(local=str(place.local))
        weights = fastload.load(REPO, options=options)
        assert_same(weights, place.tensors)
        assert (weights.report.tier, weights.report.reader, weights.report.commit_learnt) == ("hub", "hub", "hub")
        total_bytes = sum(map(len, place.files.values()))
        assert hub.served_bytes("safetensors") < 1.3 * total_bytes  # headers come twice: these shards are small
        asked = len(hub.requests)
        assert_same(fastload.load(f"{REPO}@{weights.report.commit}", options=options), place.tensors)
        assert len(hub.requests) == asked
    assert place.published() == place.files.keys()


@pytest.mark.usefixtures("leaks_nothing")
def test_a_load_from_the_hub_needs_no_local_tier(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(place.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(place.local))
        assert_same(fastload.load(REPO), place.tensors)
        assert fastload.load(REPO, dtype=None, tensors="layer.1").keys() == {"layer.1"}
        with pytest.raises(fastload.UnsupportedError, match="hub"):
            fastload.load(REPO, reader="direct")
        with pytest.raises(fastload.ModelNotFoundError):
            fastload.load("org/other")
    assert not place.local.exists()


@pytest.mark.parametrize("times", [1, None])
def test_a_header_that_was_sent_wrong_is_asked_for_once_more(
    place: Place, monkeypatch: pytest.MonkeyPatch, times: int | None
) -> None:
    with HubServer({REPO: Repo(place.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.add(WrongBytes(4), host="cdn", times=times)
        if times is None:
            with pytest.raises(fastload.FormatError, match=r"model-00001-of-00003\.safetensors"):
                fastload.load(REPO, options=Options(local=str(place.local)))
            return
        assert_same(fastload.load(REPO, options=Options(local=str(place.local))), place.tensors)
    assert place.published() == place.files.keys()


def test_what_comes_wrong_from_the_hub_is_not_to_be_mended_where_nothing_is_stored(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer({REPO: Repo(place.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.add(WrongBytes(len(place.files["model-00001-of-00003.safetensors"]) - 4), host="cdn", times=None)
        with pytest.raises(fastload.IntegrityError, match="HF_ENDPOINT") as caught:
            fastload.load(REPO, options=Options(local=str(place.local)))
    assert "--repair" not in str(caught.value)


def test_a_hub_that_refuses_what_only_the_copy_needs_keeps_the_caller_seconds_and_no_minute(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(home, "_PAUSE_S", 0.2)
    with HubServer({REPO: Repo(place.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.add(too_many_requests(60), path="*/tokenizer.json", times=None)
        begin_s = time.monotonic()
        weights = fastload.load(REPO, options=Options(local=str(place.local)))
        assert time.monotonic() - begin_s < 30
        assert_same(weights, place.tensors)
        assert "not kept" in caplog.text
        assert place.published() == set()
        hub.faults.clear()
        again = fastload.load(REPO, options=Options(local=str(place.local)))
    assert again.report.bytes_by_tier["local"] > 2 * MIB  # what it had staged is there
    assert place.published() == place.files.keys()
