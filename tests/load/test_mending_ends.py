"""What mends stored files at the end of a load ends when it is time, and goes on once a process has what it lacked."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch

import fastload
from fastload import DeadlineError, Options, StoreError
from models import MIB, assert_same, random_tensor, save_sharded
from proven_models import REPO, Model, flip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BLOCK = 4 * MIB
DEADLINE_S = 4.0
PATIENCE_S = 3.0
REST = 2
"""Blocks of each shard that are right: a copy takes them from what is there."""


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Two shards of three blocks on a mount; warmed, the first block of each is wrong."""
    model = Model(tmp_path)
    shards = {
        name: {f"{name}.{n}": random_tensor(5 * MIB, n, torch.uint8) for n in range(2)} for name in SHARDS
    }  # fmt: skip
    (tmp_path / "made").mkdir()
    save_sharded(tmp_path / "made", shards)
    model.tensors = {name: tensor for shard in shards.values() for name, tensor in shard.items()}
    model.files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    snapshot = model.warmed()
    for name in SHARDS:
        flip(snapshot / name, 9)
    return model


def staging(model: Model) -> list[str]:
    return os.listdir(model.local / "models--org--name/.fastload/staging")


def list_damaged(model: Model) -> list[str]:
    """The shards that are not what they should be."""
    return [name for name in SHARDS if (snapshot_of(model) / name).read_bytes() != model.files[name]]


def snapshot_of(model: Model) -> Path:
    """Its folder on the local tier."""
    (folder,) = (model.local / "models--org--name/snapshots").iterdir()
    return folder


def list_marked(model: Model) -> list[str]:
    """The shards that are marked as damaged."""
    return list(next(each for each in fastload.snapshots(options=model.options) if each.tier == "local").details)


def in_time(model: Model) -> Options:
    """The model's options, with a deadline."""
    return Options(
        local=str(model.local), shared=str(model.shared), tiers=("local", "shared"), deadline=f"{DEADLINE_S:.0f}s"
    )


@pytest.fixture
def overrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the disk take until the deadline is over for one of the blocks that are written to copies, by its number."""
    real, lock = os.pwrite, threading.Lock()

    def install(number: int) -> None:
        written, begin_s = 0, time.monotonic()

        def pwrite(descriptor: int, block: memoryview, offset: int) -> int:
            nonlocal written
            if "/staging/" in os.readlink(f"/proc/self/fd/{descriptor}"):
                with lock:
                    written += 1
                    is_slow = written == number
                if is_slow:
                    time.sleep(max(0.0, begin_s + DEADLINE_S + 0.5 - time.monotonic()))
            return real(descriptor, block, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)

    return install


def load(options: Options) -> None:
    """All of it."""
    fastload.load(REPO, options=options)


def stream(options: Options) -> None:
    """All of it, one after another."""
    list(fastload.stream(REPO, options=options))


def repair(options: Options) -> None:
    """Without loading it."""
    fastload.verify(REPO, repair=True, options=options)


@pytest.mark.parametrize("act", [load, stream, repair])
def test_a_deadline_that_passes_while_the_last_copy_is_made_ends_it(
    model: Model, overrun: Callable[[int], None], leaks_nothing: None, act: Callable[[Options], None]
) -> None:
    """One is whole by then, and stays so; of the other nothing is left but what was there, and its mark."""
    fastload.load(model.shared / snapshot_of(model).relative_to(model.local))  # what takes its time is no import
    overrun(len(SHARDS) + REST + 1)
    begin_s = time.monotonic()
    with pytest.raises(DeadlineError, match="did not end within 4 s") as caught:
        act(in_time(model))
    assert time.monotonic() - begin_s < DEADLINE_S + PATIENCE_S
    assert caught.value.exit_code == 19
    (damaged,) = list_damaged(model)
    assert list_marked(model) == [damaged]
    assert staging(model) == []
    assert_same(fastload.load(REPO, options=model.options), model.tensors)
    assert list_damaged(model) == list_marked(model) == []


class Descriptors:
    """Of a process that may have no more files open than it has, while as many copies as ``most`` are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self._most = most
        self._real = os.open
        self.refused = 0
        monkeypatch.setattr(os, "open", self._open)

    def _open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE and self._count_copies(path) >= self._most:
            self.refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return self._real(path, flags, *rest, **named)

    @staticmethod
    def _count_copies(scratch: str) -> int:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return sum(os.readlink(link).startswith(f"{scratch}/") for link in links if os.path.islink(link))


@pytest.mark.parametrize("act", [load, repair])
def test_a_file_for_which_there_was_no_descriptor_is_mended_when_the_others_are(
    model: Model, monkeypatch: pytest.MonkeyPatch, leaks_nothing: None, act: Callable[[Options], None]
) -> None:
    """Its blocks are asked for again then."""
    limit = Descriptors(monkeypatch, most=1)
    act(model.options)
    assert limit.refused == 1
    assert list_damaged(model) == list_marked(model) == staging(model) == []


def test_what_came_for_it_comes_once_more_and_counts_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    Descriptors(monkeypatch, most=1)
    report = fastload.load(REPO, options=model.options).report
    assert report.blocks_repaired == 2
    assert report.bytes_by_tier[f"shared:{model.shared}"] == BLOCK * 4  # twice for its header, and again at the end


def test_where_there_is_none_then_either_it_stays_as_it_is_and_is_marked(
    model: Model, monkeypatch: pytest.MonkeyPatch, leaks_nothing: None
) -> None:
    limit = Descriptors(monkeypatch, most=0)
    assert_same(fastload.load(REPO, options=model.options), model.tensors)
    assert limit.refused == 2 * len(SHARDS)
    assert list_damaged(model) == list_marked(model) == SHARDS
    with pytest.raises(StoreError, match="Too many open files") as caught:
        fastload.verify(REPO, repair=True, options=model.options)
    assert caught.value.exit_code == 15
    assert staging(model) == []
