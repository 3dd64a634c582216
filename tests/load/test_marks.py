"""What is damaged and nobody has right is marked on the local tier, until somebody has it: warm or a load mends it."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARD = "model-00001-of-00002.safetensors"


def marks(model: Model) -> Path:
    return model.local / "models--org--name/.fastload/marks" / f"{COMMIT}.json"


def state(model: Model) -> tuple[str, ...]:
    """The word for it, and which files are damaged."""
    facts = next(each for each in fastload.snapshots(options=model.options) if each.tier == "local")
    return (facts.state, *facts.details)


def damage(model: Model) -> Path:
    """A snapshot with a damaged block that no tier has right."""
    folder = model.warmed()
    shutil.rmtree(model.shared)
    flip(folder / SHARD, 5 * MIB)
    return folder


def load(model: Model) -> object:
    return fastload.load(REPO, options=model.options)


def repair(model: Model) -> object:
    return fastload.verify(REPO, repair=True, options=model.options)


def warm(model: Model) -> object:
    return fastload.warm(REPO, options=model.options)


@pytest.mark.parametrize("find", [load, repair])
def test_a_mark_is_bound_to_the_file_and_hides_nothing(model: Model, find: Callable[[Model], object]) -> None:
    folder = damage(model)
    assert state(model) == ("complete",)
    with pytest.raises(IntegrityError):
        find(model)
    status = os.stat(folder / SHARD)
    expected = {SHARD: [status.st_ino, status.st_size, status.st_mtime_ns]}
    assert json.loads(marks(model).read_bytes()) == {"schema": 1, "files": expected}
    assert state(model) == ("damaged", SHARD)
    assert fastload.resolve(REPO, options=model.options).path == str(folder)
    with pytest.raises(IntegrityError):
        warm(model)  # it does not say that all is well
    os.utime(folder / SHARD, ns=(0, 0))
    assert state(model) == ("complete",)  # another file by now, for all that is known


@pytest.mark.parametrize("mend", [load, repair, warm])
def test_who_finds_a_better_source_mends_it_and_removes_the_mark(model: Model, mend: Callable[[Model], object]) -> None:
    folder = damage(model)
    with pytest.raises(IntegrityError):
        load(model)
    write_cache(model.shared, REPO, COMMIT, model.files)
    mend(model)
    assert not marks(model).exists()
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    weights = fastload.load(REPO, options=model.options)
    assert_same(weights, model.tensors)
    assert (weights.report.tier, weights.report.blocks_reread) == ("local", 0)


def test_a_file_that_is_cut_and_nobody_has_is_marked_too(model: Model) -> None:
    folder = damage(model)
    os.truncate(folder / SHARD, MIB)
    with pytest.raises(IntegrityError):
        repair(model)
    assert state(model) == ("damaged", SHARD)


def test_only_the_local_tier_is_marked(model: Model) -> None:
    model.warmed()
    mount = model.shared / "models--org--name/snapshots" / COMMIT
    assert fastload.verify(mount, record=True).recorded
    shutil.rmtree(model.local)
    flip(mount / SHARD, 5 * MIB)
    with pytest.raises(IntegrityError):
        fastload.load(REPO, options=model.options)
    with pytest.raises(IntegrityError):
        fastload.verify(REPO, repair=True, options=model.options)
    assert not (model.shared / "models--org--name/.fastload/marks").exists()


def test_a_mark_goes_with_its_snapshot(model: Model) -> None:
    damage(model)
    with pytest.raises(IntegrityError):
        load(model)
    fastload.remove(REPO, options=model.options)
    assert not (model.local / "models--org--name").exists()
    marks(model).parent.mkdir(parents=True)
    marks(model).write_bytes(b"{")  # what cannot be read marks nothing
    write_cache(model.shared, REPO, COMMIT, model.files)
    warm(model)
    assert state(model) == ("complete",)
