"""Headers say which tensors there are, those of shards of which nothing is read too: they are proven, or it is said."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
import torch

import fastload
import ranks
from fastload import IntegrityError, Options, UsageError
from fastload._load.read.sources import Sources
from hub_server import HubServer, Repo
from models import assert_same
from proven_models import REPO
from rank_workers import Workers, workers_of
from signing import sign, write_key
from stored_models import COMMIT, write_cache, write_download_metadata, write_folder
from writing import pack, write_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FLOATS = b"\0\1\2\3"
EMPTY = pack({}, {"format": "pt", "padding": " " * 40})
FILES = {FIRST: pack({"a.weight": ("U8", [4], FLOATS)}), SECOND: pack({"b.weight": ("U8", [4], FLOATS)})}
WITH_EMPTY = {**FILES, SECOND: EMPTY}


def cached(folder: Path, files: dict[str, bytes]) -> Path:
    return write_cache(folder / "local", REPO, COMMIT, files)


def downloaded(folder: Path, files: dict[str, bytes]) -> Path:
    path = write_folder(folder / "plain", files)
    write_download_metadata(path, COMMIT, files)
    return path


def signed(folder: Path, files: dict[str, bytes]) -> Path:
    return sign(write_folder(folder / "signed", files))


PLACES: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "sha256": cached,
    "etag": downloaded,
    "signature": signed,
}


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with workers_of(2) as made:
        yield made


def options(folder: Path, kind: str) -> Options:
    key = str(write_key(folder)) if kind == "signature" else None
    return Options(signature_key=key, local=str(folder / "local"), tiers=("local",))


def change(path: Path, content: bytes) -> None:
    path.resolve().chmod(0o644)
    path.resolve().write_bytes(content)


def load_into(path: Path, how: Options) -> None:
    module = torch.nn.Module()
    for name in ("a", "b"):
        module.add_module(name, torch.nn.Module())
        getattr(module, name).register_buffer("weight", torch.zeros(4, dtype=torch.uint8))
    fastload.load_into(module, path, strict=False, options=how)


WAYS: dict[str, Callable[[Path, Options], object]] = {
    "load": lambda path, how: fastload.load(path, options=how),
    "load, required": lambda path, how: fastload.load(path, options=how, verify="require"),
    "load, mapped": lambda path, how: fastload.load(path, options=how, reader="mmap"),
    "stream": lambda path, how: list(fastload.stream(path, options=how)),
    "load_into": load_into,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=tuple(WAYS))
@pytest.mark.parametrize("kind", PLACES)
def test_a_shard_that_has_lost_all_its_tensors_is_found(tmp_path: Path, kind: str, way: Callable[..., object]) -> None:
    path = PLACES[kind](tmp_path, FILES)
    change(path / SECOND, EMPTY)
    with pytest.raises(IntegrityError, match=SECOND):
        way(path, options(tmp_path, kind))


@pytest.mark.parametrize("way", WAYS.values(), ids=tuple(WAYS))
@pytest.mark.parametrize("kind", PLACES)
def test_one_that_should_have_none_is_proven(tmp_path: Path, kind: str, way: Callable[..., object]) -> None:
    path = PLACES[kind](tmp_path, WITH_EMPTY)
    way(path, options(tmp_path, kind))
    report = fastload.load(path, options=options(tmp_path, kind), verify="require").report
    assert report.evidence in {kind, "manifest"}
    assert report.blocks_verified == (2 if report.evidence == kind else 1)


def test_so_is_a_model_without_any_tensor(tmp_path: Path) -> None:
    path = downloaded(tmp_path, {"model.safetensors": EMPTY})
    report = fastload.load(path, verify="require").report
    assert (report.evidence, report.bytes, report.blocks_verified) == ("etag", 0, 1)
    change(path / "model.safetensors", pack({}))
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        fastload.load(path)


def test_the_shape_of_a_tensor_without_bytes_is_proven(tmp_path: Path) -> None:
    files = {**FILES, SECOND: pack({"b.weight": ("U8", [0, 4], b"")})}
    path = write_folder(tmp_path / "plain", files)
    index = write_index(path, {"a.weight": FIRST, "b.weight": SECOND})
    write_download_metadata(path, COMMIT, {**files, index.name: index.read_bytes()})
    assert fastload.load(path).report.evidence == "etag"
    change(path / SECOND, pack({"b.weight": ("U8", [0, 5], b"")}))
    with pytest.raises(IntegrityError, match=SECOND):
        fastload.load(path)


def test_what_the_hub_gives_of_it_is_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Options(local=str(tmp_path / "local"), write_through="off")
    with HubServer({REPO: Repo(WITH_EMPTY)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        report = fastload.load(REPO, options=how, verify="require").report
        assert (report.evidence, report.blocks_verified) == ("listing", 2)


def test_one_that_another_tier_has_right_is_mended(tmp_path: Path) -> None:
    path = cached(tmp_path, FILES)
    write_cache(tmp_path / "shared", REPO, COMMIT, FILES)
    change(path / SECOND, EMPTY)
    how = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    weights = fastload.load(REPO, options=how)
    assert set(weights) == {"a.weight", "b.weight"}
    assert "came again from another" in weights.report.evidence_reason
    assert (path / SECOND).read_bytes() == FILES[SECOND]


@pytest.mark.parametrize("kind", ["sha256", "etag"])
def test_in_a_group_too(workers: Workers, tmp_path: Path, kind: str) -> None:
    path = PLACES[kind](tmp_path, WITH_EMPTY)
    loaded = workers.call(ranks.load, str(path))
    assert {report.evidence for _, report in loaded} == {kind}
    change(path / SECOND, pack({}))
    errors = workers.try_call(ranks.load_with, str(path), {"verify": "auto"})
    assert all(isinstance(error, IntegrityError | fastload.GroupError) for error in errors)
    assert any(isinstance(error, IntegrityError) and SECOND in str(error) for error in errors)


@pytest.mark.parametrize("kind", PLACES)
def test_of_a_part_it_is_said_that_other_shards_might_hold_more(tmp_path: Path, kind: str) -> None:
    path, how = PLACES[kind](tmp_path, FILES), options(tmp_path, kind)
    change(path / SECOND, FILES[SECOND].replace(b"b.weight", b"b.weighs"))
    if kind != "signature":
        part = fastload.load(path, tensors="*.weight", options=how)
        assert (list(part), part.report.evidence) == (["a.weight"], "none")
        assert "no block digests, and only a part is read" in part.report.evidence_reason
    with pytest.raises(IntegrityError, match="no block digests, and only a part"):
        fastload.load(path, tensors="*.weight", options=how, verify="require" if kind != "signature" else "auto")


def test_by_an_index_a_part_is_proven(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "plain", FILES)
    index = write_index(path, {"a.weight": FIRST, "b.weight": SECOND})
    write_download_metadata(path, COMMIT, {**FILES, index.name: index.read_bytes()})
    part = fastload.load(path, tensors="a.*", verify="require")
    assert (list(part), part.report.evidence) == (["a.weight"], "etag")


def test_a_part_is_not_proven_where_nothing_is_known_of_another_shard(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "plain", FILES)
    fastload.verify(path, record=True)
    part = fastload.load(path, tensors="a.*", verify="require")
    assert_same(part, {"a.weight": torch.frombuffer(bytearray(FLOATS), dtype=torch.uint8)})
    change(path / SECOND, FILES[SECOND].replace(b"b.weight", b"b.weighs"))
    part = fastload.load(path, tensors="*.weight")
    assert (list(part), part.report.evidence) == (["a.weight"], "none")
    assert "nothing is known of a shard that may hold more" in part.report.evidence_reason


def test_a_stream_that_is_closed_at_its_end_has_not_proven_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = downloaded(tmp_path, FILES)
    change(path / SECOND, EMPTY)
    stream, really_open = fastload.stream(path), Sources.open_once

    def close_first(sources: Sources, shard: int) -> None:
        threading.Thread(target=stream.close).start()
        job = stream._job
        assert job is not None
        while not job.schedule.is_stopped():
            time.sleep(0.01)
        really_open(sources, shard)

    monkeypatch.setattr(Sources, "open_once", close_first)
    with pytest.raises(UsageError, match="closed while its end"):
        list(stream)
    assert stream.report.evidence == "none"
