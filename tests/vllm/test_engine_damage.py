"""A wrong byte never becomes a model: it is mended by who has the right one, or the start ends and names the file."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from vllm.config import LoadConfig, VllmConfig, set_current_vllm_config

import fastload
from engines import outcome
from fastload.integrations.vllm.loader import FastloadLoader
from stored_models import COMMIT, write_cache
from writing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engines import Engines

REPO = "org/tiny"
SHARD = "model-00001-of-00003.safetensors"


def _flip(path: Path) -> None:
    """The last byte, which is a tensor's."""
    with open(path.resolve(), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


@pytest.fixture
def local(llama: Path, tiers: Path) -> Path:
    """The local copy, whose names of blobs say what must be in them."""
    files = {path.name: path.read_bytes() for path in llama.iterdir()}
    write_cache(tiers / "shared", REPO, COMMIT, files)
    return write_cache(tiers / "local", REPO, COMMIT, files)


@pytest.mark.parametrize("evidence", ["manifest", "sha256"])
def test_a_wrong_byte_ends_the_start(evidence: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if evidence == "manifest":
        fastload.warm(REPO)
    monkeypatch.setenv("FASTLOAD_TIERS", "local")
    _flip(local / SHARD)
    with pytest.raises(fastload.IntegrityError, match=SHARD):
        outcome(REPO)


def test_a_wrong_block_is_mended_from_another_tier(local: Path, llama: Path, engines: Engines) -> None:
    fastload.warm(REPO)
    _flip(local / SHARD)
    assert outcome(REPO) == engines.expected(str(llama))
    assert (local / SHARD).read_bytes() == (llama / SHARD).read_bytes()


class _Hasty(torch.nn.Module):
    """A model that asks for one tensor and has enough."""

    def load_weights(self, weights: Iterator[tuple[str, torch.Tensor]]) -> set[str]:
        return {next(iter(weights))[0]}


@pytest.fixture
def big(tiers: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only file of ``org/big``, of which the first tensor has long come when the last byte is read."""
    monkeypatch.setenv("FASTLOAD_TIERS", "local")
    monkeypatch.setenv("FASTLOAD_STAGING_BYTES", "4Mi")
    content = {"model.safetensors": pack({str(n): ("U8", [1 << 20], bytes(1 << 20)) for n in range(24)})}
    return write_cache(tiers / "local", "org/big", COMMIT, content) / "model.safetensors"


BIG = SimpleNamespace(model="org/big", revision=None, quantization="none", multimodal_config=None, is_moe=False)


def test_the_proof_is_finished_even_if_the_model_stops_asking(big: Path) -> None:
    """What it has got is proven only at the end of the file, by the digest of the whole."""
    _flip(big)
    loader = FastloadLoader(LoadConfig(load_format="fastload"))
    with set_current_vllm_config(VllmConfig()), pytest.raises(fastload.IntegrityError, match=r"model\.safetensors"):
        loader.load_weights(_Hasty(), BIG)


def _count_threads() -> int:
    return sum(thread.name.startswith("fastload") for thread in threading.enumerate())


@pytest.mark.parametrize("evidence", ["manifest", "sha256"])
def test_a_reload_that_stops_early_ends_its_reading_and_says_what_is_not_proven(
    evidence: str, big: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody comes to finish it: vLLM's reload drops the iterator, and what is raised then is heard by nobody."""
    if evidence == "manifest":
        fastload.warm("org/big")
    _flip(big)
    before = _count_threads()
    loader = FastloadLoader(LoadConfig(load_format="fastload"))
    weights = loader.get_all_weights(BIG, _Hasty())
    assert next(weights)[0] == "0"
    assert _count_threads() > before
    weights.close()
    assert _count_threads() == before
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    if evidence == "manifest":
        assert said == []
    else:
        assert ["left before the end of a file" in message for message in said] == [True]


def test_a_reload_that_goes_on_to_the_end_is_proven(big: Path) -> None:
    _flip(big)
    before = _count_threads()
    loader = FastloadLoader(LoadConfig(load_format="fastload"))
    with pytest.raises(fastload.IntegrityError, match=r"model\.safetensors"):
        list(loader.get_all_weights(BIG, _Hasty()))
    assert _count_threads() == before
