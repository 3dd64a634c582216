"""``max_rate`` holds a load back that reads from a lower tier, and no other one."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

import fastload
from fastload import DeadlineError, Options
from fastload._fetch.verify.examination import Examination
from fastload._fetch.verify.examine import examine
from fastload.options import decide_settings
from hub_server import HubServer, Repo
from models import MIB, assert_same
from proven_models import REPO, Model
from stored_models import write_folder

RATE = 5 * MIB
LEAST_S = 1.6
"""Two shards of 5 MiB at that rate, less the burst that it begins with and what headers take."""


def _timed(model: Model, options: Options) -> tuple[float, fastload.Weights]:
    begin_s = time.monotonic()
    weights = fastload.load(REPO, options=options)
    taken_s = time.monotonic() - begin_s
    assert_same(weights, model.tensors)
    return taken_s, weights


def test_a_load_from_the_hub_is_held_back(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        taken_s, weights = _timed(model, Options(local=str(model.local), max_rate=RATE, write_through="off"))
    assert weights.report.tier == "hub"
    assert taken_s >= LEAST_S
    assert "max_rate" in weights.report.reader_reason


@pytest.mark.parametrize("reader", ["auto", "direct", "buffered", "mmap"])
def test_a_load_from_a_mount_is_held_back_and_from_the_local_tier_is_not(model: Model, reader: str) -> None:
    model.warmed()
    weights = fastload.load(REPO, options=replace(model.options, max_rate="1Ki", reader=reader))  # would take hours
    assert_same(weights, model.tensors)
    assert weights.report.tier == "local"
    assert "max_rate" not in weights.report.reader_reason
    other = str(model.local.parent / "other")
    elsewhere = replace(model.options, max_rate=RATE, reader=reader, local=other, write_through="off")
    taken_s, weights = _timed(model, elsewhere)
    assert weights.report.tier == f"shared:{model.shared}"
    assert taken_s >= LEAST_S
    assert "max_rate" in weights.report.reader_reason


def test_what_waits_for_its_turn_ends_with_the_load(model: Model, leaks_nothing: None) -> None:
    model.warmed()
    options = replace(model.options, local=str(model.local.parent / "other"), max_rate="1Ki", write_through="off")
    with pytest.raises(DeadlineError):
        fastload.load(REPO, options=replace(options, deadline="1s"))
    for thread in threading.enumerate():
        if thread.name.startswith("fastload-"):
            thread.join(10)  # it would take hours


@pytest.mark.parametrize("place", ["local", "path"])
def test_a_check_is_held_back_wherever_it_reads(model: Model, place: str) -> None:
    """Nobody waits for it, and others may for the disk."""
    snapshot = model.warmed()
    options = Options(local=str(model.local), tiers="local", max_rate=RATE)
    begin_s = time.monotonic()
    assert fastload.verify(REPO if place == "local" else snapshot, options=options).findings == ()
    assert time.monotonic() - begin_s >= LEAST_S


def test_a_record_is_held_back(model: Model) -> None:
    """All is read twice then: to check it, and to digest its blocks."""
    folder = write_folder(model.local.parent / "plain", model.files)
    options = Options(local=str(model.local), tiers="local", max_rate=2 * RATE)
    begin_s = time.monotonic()
    assert fastload.verify(folder, record=True, options=options).recorded
    assert time.monotonic() - begin_s >= LEAST_S / 2


def test_a_check_that_waits_for_its_turn_ends_with_its_deadline(model: Model) -> None:
    model.warmed()
    options = Options(local=str(model.local), tiers="local", max_rate="1Ki", deadline="1s")
    before = set(threading.enumerate())
    with pytest.raises(DeadlineError):
        fastload.verify(REPO, options=options)
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("fastload-"):
            thread.join(10)  # it would take hours
            assert not thread.is_alive()


def test_a_load_that_looks_again_at_the_local_tier_is_not_held_back(model: Model) -> None:
    """As it was not while it read: somebody waits for it."""
    snapshot = model.warmed()
    settings = decide_settings(Options(local=str(model.local), tiers="local", max_rate="1Ki"), {})  # would take hours
    wish = Examination(REPO, None, repairs=False, records=False, include=(), paces_local=False)
    assert examine(wish, settings).path == str(snapshot)
