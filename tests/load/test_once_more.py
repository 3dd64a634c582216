"""Files with a digest of the whole alone: what is wrong is read again or comes from another tier, and all is loaded."""

from __future__ import annotations

import json
import os
import shutil
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import fastload
from fastload import IntegrityError, Options, _address_space
from fastload._address_space import map_private
from fastload._load.retry import once_more
from fastload.cli import main
from hub_server import HubServer, Repo
from models import MIB, assert_same
from proven_models import REPO, Model, flip, refuse_to_replace
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastload._fetch.verify.verification import Verification
    from fastload._load.request.request import Request
    from fastload.options import Settings
    from fastload.report import Report

SHARD = "model-00001-of-00002.safetensors"


def load(model: Model, options: Options, revision: str = COMMIT) -> tuple[dict[str, torch.Tensor], str]:
    weights = fastload.load(REPO, revision=revision, options=options)
    return weights, weights.report.evidence_reason


def load_into(model: Model, options: Options) -> tuple[dict[str, torch.Tensor], str]:
    module = module_of(model)
    report = fastload.load_into(module, REPO, revision=COMMIT, options=options)
    return module.state_dict(), report.evidence_reason


def module_of(model: Model) -> nn.Module:
    module = nn.Module()
    for part in ("1", "2"):
        module.add_module(part, nn.Module())
    for name, tensor in model.tensors.items():
        getattr(module, name[0]).register_buffer(name[2:], torch.zeros_like(tensor))
    return module


def load_report(model: Model, options: Options, *, into: bool) -> Report:
    if into:
        return fastload.load_into(module_of(model), REPO, options=options)
    return fastload.load(REPO, options=options).report


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


def test_the_command_line_has_a_damaged_copy_brought_again_too(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tensors go by one by one; none has been kept, so that nothing is in use when it begins anew."""
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    tiers = ("--local", str(model.local), "--shared", str(model.shared), "--tiers", "local,shared")
    words = ["load", REPO, *tiers, "--trace", str(tmp_path / "trace.json")]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert f"{SHARD} was wrong on the local tier" in report["evidence_reason"]
    assert report["blocks_repaired"] > 0
    assert report["tensors"] == len(model.tensors)
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    flip(folder / SHARD, 5 * MIB)
    flip(model.shared / folder.relative_to(model.local) / SHARD, 5 * MIB + 1)
    assert main(words) == 13
    assert main(["ls", *tiers[:2]]) == 0
    assert "damaged" in capsys.readouterr().out


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

    monkeypatch.setattr(_address_space, "map_private", mapping)
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


@pytest.mark.parametrize("slow", ["_look", "_find_cure"])
def test_when_time_is_over_that_is_what_it_says(model: Model, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    """With the deadline that was set, and not what was left of it."""
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    real, passed_s = getattr(once_more, slow), [0.0]

    def linger(*args: object, **kwargs: object) -> object:
        found = real(*args, **kwargs)
        passed_s[0] += 5.0
        return found

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s[0])
    monkeypatch.setattr("fastload._fetch.deadline.time", clock)
    monkeypatch.setattr(once_more, slow, linger)
    with pytest.raises(fastload.DeadlineError) as caught:
        load(model, replace(model.options, deadline=5.0))
    assert caught.value.deadline_s == passed_s[0] == 5.0


def test_a_damaged_copy_that_may_not_be_written_gives_way_to_the_next_tier(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    refuse_to_replace(folder / SHARD, monkeypatch)
    tensors, reason = load(model, replace(model.options, write_through="off"))
    assert_same(tensors, model.tensors)
    assert "so that others were asked" in reason


BLOCKS = 2
"""Of a shard; the past-the-cache look at it reads both."""


def test_what_a_second_try_had_to_read_and_bring_is_counted(model: Model) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    clean = fastload.load(REPO, options=replace(model.options, tiers=("shared",), write_through="off")).report
    for into in (False, True):
        shutil.rmtree(folder.parents[1] / ".fastload", ignore_errors=True)
        flip(folder / SHARD, 5 * MIB)
        report = load_report(model, model.options, into=into)
        shard = len(model.files[SHARD])
        looked = 2 * (sum(len(model.files[name]) for name in model.files if name.endswith(".safetensors")) + shard)
        assert report.bytes_by_tier[f"shared:{model.shared}"] == shard
        assert (report.blocks_reread, report.blocks_repaired) == (BLOCKS, BLOCKS)  # though looked at twice
        noted = sum(len(content) for name, content in model.files.items() if not name.endswith(".safetensors"))
        least = (
            clean.bytes_read + looked + shard + noted
        )  # of the first try at least the shard that was wrong at its end
        assert least <= report.bytes_by_tier["local"] <= 2 * clean.bytes_read + looked + noted
        assert report.bytes_read == report.bytes_by_tier["local"]


def test_what_another_tier_gave_in_a_second_try_is_counted(model: Model, tmp_path: Path) -> None:
    folder = write_cache(model.shared, REPO, COMMIT, model.files)
    write_cache(tmp_path / "second", REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    both = f"{model.shared}:{tmp_path / 'second'}"
    report = load_report(model, replace(model.options, shared=both, write_through="off"), into=False)
    assert (report.blocks_reread, report.blocks_repaired) == (BLOCKS, BLOCKS)
    assert set(report.bytes_by_tier) == {f"shared:{model.shared}", f"shared:{tmp_path / 'second'}"}
    assert report.tier == f"shared:{tmp_path / 'second'}"
    assert sum(report.bytes_by_tier.values()) == report.bytes_read > 2 * report.bytes


def test_a_second_read_of_a_file_that_was_wrong_in_the_page_cache_alone_is_counted(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.downloaded()
    real, flipped = os.preadv, [0]

    def twice(descriptor: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        """Wrong for the load and for the first look at it, as a page of the cache would be."""
        count = real(descriptor, buffers, offset, *flags)
        is_it = os.readlink(f"/proc/self/fd/{descriptor}") == str(folder / SHARD)
        if is_it and flipped[0] < 2 and offset <= 5 * MIB < offset + count:
            next(buffer for buffer in reversed(buffers) if len(buffer))[-1] ^= 1
            flipped[0] += 1
        return count

    monkeypatch.setattr(os, "preadv", twice)
    report = fastload.load(folder, reader="buffered").report
    assert flipped == [2]
    assert "is right as it is stored" in report.evidence_reason
    assert (report.blocks_reread, report.blocks_repaired) == (BLOCKS, 0)


def test_verify_counts_what_it_read_again_and_what_it_brought(model: Model) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    flip(folder / SHARD, 5 * MIB)
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert (found.blocks_reread, found.blocks_repaired) == (BLOCKS, BLOCKS)
    everything = sum(map(len, model.files.values())) + len(model.files[SHARD])
    assert found.bytes_by_tier == {"local": everything, f"shared:{model.shared}": len(model.files[SHARD])}
    assert found.to_dict()["blocks_repaired"] == BLOCKS
