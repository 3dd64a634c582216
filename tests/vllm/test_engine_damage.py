"""A wrong byte never becomes a model: it is mended by who has the right one, or the start ends and names the file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import fastload
from engines import outcome
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
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
