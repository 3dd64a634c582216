"""A model of vLLM's that takes weights from more files than its own: BGE-M3, whose heads are not safetensors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from engines import Outcome, outcome
from hub_server import HubServer, Repo
from stored_models import COMMIT, write_cache
from tiny_models import make_bge_m3

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/bge-m3"
HEADS = {"sparse_linear.pt", "colbert_linear.pt"}
OPTIONS: dict[str, Any] = {"runner": "pooling", "speaks": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one."""
    return make_bge_m3(tmp_path_factory.mktemp("models") / "bge")


@pytest.fixture(scope="module")
def expected(model: Path) -> Outcome:
    """What vLLM's own loader makes of it."""
    return outcome(str(model), "auto", **OPTIONS)


@pytest.fixture
def files(model: Path) -> dict[str, bytes]:
    """Its files."""
    return {path.name: path.read_bytes() for path in model.iterdir()}


def test_by_path(model: Path, expected: Outcome) -> None:
    assert outcome(str(model), **OPTIONS) == expected


def test_by_a_name_that_only_the_hub_has_and_then_offline(
    files: dict[str, bytes], expected: Outcome, tiers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left out when it was warmed comes when the model asks for it."""
    monkeypatch.setenv("FASTLOAD_TIERS", "local,hub")
    with HubServer({REPO: Repo(files)}) as hub, monkeypatch.context() as online:
        online.setenv("HF_ENDPOINT", hub.url)
        online.setenv("HF_HUB_OFFLINE", "0")
        assert not HEADS & set(os.listdir(fastload.warm(REPO, exclude="*.pt").path))
        assert outcome(REPO, **OPTIONS) == expected
    assert set(os.listdir(fastload.resolve(REPO).path)) >= HEADS
    assert outcome(REPO, **OPTIONS) == expected


def test_by_a_name_on_a_mount_at_every_start(
    files: dict[str, bytes], expected: Outcome, tiers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cache(tiers / "shared", REPO, COMMIT, files)
    for _ in range(2):
        assert outcome(REPO, **OPTIONS) == expected
        assert fastload.resolve(REPO).tier == "local"
