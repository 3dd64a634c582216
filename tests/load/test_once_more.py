"""Files with a digest of the whole alone: what is wrong is read again or comes from another tier, and all is loaded."""

from __future__ import annotations

import os
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import fastload
from fastload import IntegrityError, Options
from fastload._address_space import map_private
from fastload._load import once_more
from fastload._place import memory
from hub_server import HubServer, Repo
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastload._fetch.verify import Verification
    from fastload._load.request import Request
    from fastload.options import Settings

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


def load(model: Model, options: Options, revision: str = COMMIT) -> tuple[dict[str, torch.Tensor], str]:
    weights = fastload.load(REPO, revision=revision, options=options)
    return weights, weights.report.evidence_reason


def load_into(model: Model, options: Options) -> tuple[dict[str, torch.Tensor], str]:
    module = nn.Module()
    for part in ("1", "2"):
        module.add_module(part, nn.Module())
    for name, tensor in model.tensors.items():
        getattr(module, name[0]).register_buffer(name[2:], torch.zeros_like(tensor))
    report = fastload.load_into(module, REPO, revision=COMMIT, options=options)
    return module.state_dict(), report.evidence_reason


@pytest.mark.parametrize("way", [load, load_into])
def test_a_damaged_copy_on_the_local_tier_comes_again(
    model: Model, way: Callable[[Model, Options], tuple[dict[str, torch.Tensor], str]]
) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    tensors, reason = way(model, model.options)
    assert_same(tensors, model.tensors)
    assert f"{SHARD} was wrong on the local tier" in reason
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    assert "wrong" not in way(model, model.options)[1]


def test_of_a_damaged_copy_on_a_mount_the_hub_is_asked_and_the_mount_stays(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repo(model.files)
    folder = write_cache(model.shared, REPO, repo.commit, model.files)
    flip(folder / SHARD, 5 * MIB)
    damaged = (folder / SHARD).read_bytes()
    options = Options(local=str(model.local), shared=str(model.shared), write_through="off")
    with HubServer({REPO: repo}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        tensors, reason = load(model, options, repo.commit)
        assert hub.served_bytes("/cdn/") > 0
    assert_same(tensors, model.tensors)
    assert f"{SHARD} is wrong on " in reason
    assert str(model.shared) in reason
    assert (folder / SHARD).read_bytes() == damaged


@pytest.mark.parametrize("place", ["local", "shared"])
def test_where_nobody_has_better_it_is_an_error_and_not_tried_for_ever(model: Model, place: str) -> None:
    folder = write_cache(getattr(model, place), REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    with pytest.raises(IntegrityError, match="sha256") as caught:
        load(model, model.options)
    assert caught.value.path == str(folder / SHARD)


def test_all_damaged_files_come_again_at_once(model: Model) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    other = SHARD.replace("00001-of", "00002-of")
    for name in (SHARD, other):
        flip(folder / name, 5 * MIB)
    assert_same(load(model, model.options)[0], model.tensors)
    assert [(folder / name).read_bytes() == model.files[name] for name in (SHARD, other)] == [True, True]


def test_a_path_into_the_local_tier_comes_again_as_its_name_does(model: Model) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    weights = fastload.load(folder, options=model.options)
    assert_same(weights, model.tensors)
    assert f"{SHARD} was wrong on the local tier" in weights.report.evidence_reason
    assert (folder / SHARD).read_bytes() == model.files[SHARD]


def test_a_path_is_read_again_but_no_other_place_is_asked(model: Model) -> None:
    folder = model.downloaded()
    flip(folder / SHARD, 5 * MIB)
    before = os.stat(folder / SHARD)
    with pytest.raises(IntegrityError, match="sha256"):
        fastload.load(folder)
    assert os.stat(folder / SHARD).st_mtime_ns == before.st_mtime_ns


def test_the_memory_of_the_first_try_is_given_back_before_the_second(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    look = once_more._look
    made: list[weakref.ref[object]] = []
    held: list[int] = []

    def mapping(*arguments: int, **options: int) -> object:
        mapped = map_private(*arguments, **options)
        made.append(weakref.ref(mapped))
        return mapped

    def looking(request: Request, *, repairs: bool) -> Verification:
        held.append(sum(each() is not None for each in made))
        return look(request, repairs=repairs)

    monkeypatch.setattr(memory, "map_private", mapping)
    monkeypatch.setattr(once_more, "_look", looking)
    assert_same(load(model, model.options)[0], model.tensors)
    assert made
    assert held == [0, 0]


def test_a_damaged_path_is_not_read_a_third_time_because_it_lies_on_a_mount(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    with pytest.raises(IntegrityError, match="sha256"):
        fastload.load(folder, options=model.options)
    assert "once more" not in caplog.text


def test_the_second_try_has_the_time_that_is_left(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    given: list[float | None] = []
    without = once_more._without

    def noting(request: Request, found: Verification) -> Settings | None:
        settings = without(request, found)
        given.append(None if settings is None else settings.deadline)
        return settings

    monkeypatch.setattr(once_more, "_without", noting)
    monkeypatch.setattr(once_more, "_is_mended", lambda _: False)
    tensors, _ = load(model, replace(model.options, deadline=60.0))
    assert_same(tensors, model.tensors)
    assert given[0] is not None
    assert 0 < given[0] < 60.0


def test_a_damaged_copy_that_may_not_be_written_gives_way_to_the_next_tier(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    blob, real = str((folder / SHARD).resolve()), os.replace

    def refuse(made: str, path: str) -> None:
        if path == blob:
            raise PermissionError(13, "Permission denied")
        real(made, path)

    monkeypatch.setattr(os, "replace", refuse)
    tensors, reason = load(model, replace(model.options, write_through="off"))
    assert_same(tensors, model.tensors)
    assert "so that others were asked" in reason
