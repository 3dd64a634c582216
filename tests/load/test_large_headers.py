"""Headers and indexes that would take more memory than there is: refused before they are parsed."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest

import fastload
import fastload._load.engine  # it must not be imported while a test has replaced what it takes from there
from fastload._budget import MEMORY_PER_JSON_BYTE, Headroom
from hub_server import HubServer, Repo
from writing import one_tensor, shard_bytes, write_index

if TYPE_CHECKING:
    from pathlib import Path

CAP = 100_000_000
INDEX = "model.safetensors.index.json"


def leave(monkeypatch: pytest.MonkeyPatch, available_bytes: int) -> None:
    """A machine with so much memory."""
    monkeypatch.setattr("fastload._budget.host_headroom", lambda: Headroom("a test", available_bytes))


def test_a_header_is_weighed_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 1 << 30)
    path = tmp_path / "model.safetensors"
    path.write_bytes(CAP.to_bytes(8, "little"))
    os.truncate(path, 1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(fastload.MemoryBudgetError, match="a test leaves 1,073,741,824") as caught:
            fastload.inspect(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.needed_bytes == MEMORY_PER_JSON_BYTE * CAP
    assert str(path) in caught.value.hint


def test_an_index_is_weighed_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 1 << 20)
    (tmp_path / INDEX).write_bytes(b" " * (5 << 20))
    with pytest.raises(fastload.MemoryBudgetError, match="of JSON"):
        fastload.inspect(tmp_path)


@pytest.mark.parametrize("too_large", ["model.safetensors", INDEX])
def test_so_are_those_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_large: str) -> None:
    leave(monkeypatch, 1 << 20)
    padding = b" " * (5 << 20)
    files = {"config.json": b"{}", "model.safetensors": one_tensor()}
    files[too_large] = padding if too_large == INDEX else shard_bytes(b"{}" + padding)
    with HubServer({"org/name": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = fastload.Options(local=str(tmp_path / "local"), tiers="local,hub", write_through="off")
        with pytest.raises(fastload.MemoryBudgetError, match="of JSON"):
            fastload.load("org/name", options=options)


def test_usual_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask the kernel takes longer than to parse them."""
    leave(monkeypatch, 0)
    (tmp_path / "a.safetensors").write_bytes(one_tensor())
    names = fastload.inspect(tmp_path / "a.safetensors").tensors
    write_index(tmp_path, dict.fromkeys(names, "a.safetensors"))
    assert fastload.inspect(tmp_path).tensors.keys() == names.keys()
