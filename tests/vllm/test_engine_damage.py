"""A wrong byte never becomes a model: it is mended by who has the right one, or the start ends and names the file."""

from __future__ import annotations

import os
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


def test_the_proof_is_finished_even_if_the_model_stops_asking(tiers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has got is proven only at the end of the file, by the digest of the whole."""
    monkeypatch.setenv("FASTLOAD_TIERS", "local")
    monkeypatch.setenv("FASTLOAD_STAGING_BYTES", "4Mi")
    big = {"model.safetensors": pack({str(n): ("U8", [1 << 20], bytes(1 << 20)) for n in range(24)})}
    path = write_cache(tiers / "local", "org/big", COMMIT, big) / "model.safetensors"
    path.resolve().write_bytes(big["model.safetensors"][:-1] + b"\1")
    wanted = SimpleNamespace(model="org/big", revision=None, quantization="none", multimodal_config=None, is_moe=False)
    loader = FastloadLoader(LoadConfig(load_format="fastload"))
    with set_current_vllm_config(VllmConfig()), pytest.raises(fastload.IntegrityError, match=r"model\.safetensors"):
        loader.load_weights(_Hasty(), wanted)
