"""What a load was bound by, where that is certain: the report's sentence must name it.

A machine that is held up while the model is looked for, say, makes that the longest: so hours pass in what is meant.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING

import torch

import fastload
from fastload import Options
from hand_clock import HandClock, wait_for_workers
from hub_faults import Drip
from hub_server import HubServer, Repo
from models import MIB, save_large
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

REPO = "org/name"


def model_files(folder: Path, tensors: int = 16) -> dict[str, bytes]:
    folder.mkdir()
    save_large(folder, tensors)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_bound(report: fastload.Report, by: str, says: str) -> None:
    """By that; or by another stage than the stream, where the machine was held up in it."""
    longest = max(report.stages, key=lambda stage: report.stages[stage])
    if longest == "stream":
        assert report.bound_by == by, report.bottleneck
        assert report.bottleneck.startswith(says)
    else:
        assert report.bound_by == longest, report.bottleneck


def test_a_digest_of_one_whole_file_is_what_holds_up_all_workers(tmp_path: Path) -> None:
    """sha256 is one core's work, and the others wait for their turn: reading takes a tenth of that."""
    snapshot = write_cache(tmp_path / "hub", REPO, COMMIT, model_files(tmp_path / "made", 64))
    fastload.load(snapshot, reader="buffered")  # else it may be fresh memory that holds them up
    report = fastload.load(snapshot, reader="buffered").report
    assert report.evidence == "sha256"
    assert_bound(report, "hash", "digesting: ")


def test_a_hub_that_is_slow_is_what_holds_up_a_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(model_files(tmp_path / "made"))}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.add(Drip(1 << 20, 0.05), host="cdn", times=None)  # 20 MB/s a connection
        options = Options(local=str(tmp_path / "local"), tiers=("hub",), write_through="off")
        report = fastload.load(REPO, options=options).report
    assert_bound(report, "read", "reading (hub): ")


def test_storage_is_what_holds_up_a_load_that_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_large(tmp_path)
    HandClock(monkeypatch).let_last(os, "preadv", lambda _, buffers, *__: sum(map(len, buffers)) >= MIB)
    report = fastload.load(tmp_path, reader="buffered", verify="off").report
    assert report.bound_by == "read", report.bottleneck
    assert report.bottleneck.startswith("reading (buffered): ")


def test_a_caller_who_takes_his_time_is_what_holds_up_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_large(tmp_path)
    clock = HandClock(monkeypatch)
    with fastload.stream(tmp_path, reader="buffered") as stream:
        next(stream)
        wait_for_workers(to_end=True)
        for _ in stream:
            clock.pass_hour()
    assert stream.report.bound_by == "caller", stream.report.bottleneck


def test_a_caller_who_comes_late_is_what_holds_up_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens the stream and builds the model then has planned nothing for an hour."""
    save_large(tmp_path)
    clock = HandClock(monkeypatch)
    with fastload.stream(tmp_path, reader="buffered") as stream:
        clock.pass_hour()
        for _ in stream:
            pass
    assert stream.report.bound_by == "caller", stream.report.bottleneck
    assert stream.report.stages["plan"] < 3600 <= stream.report.stages["stream"]


def test_a_cast_is_named_and_is_no_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = save_large(tmp_path, 8, 8 * MIB)
    HandClock(monkeypatch).let_last(torch.Tensor, "copy_")
    report = fastload.load(tmp_path, reader="buffered", dtype="F64").report
    assert report.bound_by == "copy", report.bottleneck
    assert report.busy_s["copy"] > 0
    assert report.bytes == sum(
        tensor.numel() * 8 if tensor.is_floating_point() else tensor.nbytes for tensor in content.values()
    )


def test_what_is_left_to_do_when_all_is_read_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of tensors in no bytes to speak of: they are made on the caller's thread."""
    save_large(tmp_path, 20_000, 2)
    HandClock(monkeypatch).let_last(
        torch, "frombuffer", lambda *_: threading.current_thread() is threading.main_thread()
    )
    report = fastload.load(tmp_path, reader="buffered").report
    assert report.bound_by in ("caller", "plan", "resolve"), report.bottleneck


def test_a_stream_that_was_closed_early_has_spent_no_more_than_its_time(tmp_path: Path) -> None:
    save_large(tmp_path, 16, 8 * MIB)
    for _ in range(12):
        stream = fastload.stream(tmp_path)
        next(stream)
        stream.close()
        shares = re.findall(r"(\d+)% of the workers", stream.report.bottleneck)
        assert all(int(share) <= 100 for share in shares), stream.report.bottleneck
