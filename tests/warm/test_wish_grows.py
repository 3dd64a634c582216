"""``warm`` with a larger wish than before: what is missing of it comes from who has it, not from what is there."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options
from hub_server import HubServer, Repo
from stored_models import model_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "org/name"
FILES = {**model_files(), "head.pt": b"torch's"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """All of the model."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HubServer({REPO: Repo(FILES)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """The local tier and the hub."""
    return Options(local=str(tmp_path / "local"), tiers="local,hub")


@pytest.mark.parametrize("names_commit", [True, False])
def test_a_file_that_was_left_out_comes_from_the_hub(names_commit: bool, hub: HubServer, options: Options) -> None:  # noqa: FBT001
    first = fastload.warm(REPO, options=options)
    name = f"{REPO}@{first.commit}" if names_commit else REPO
    more = fastload.warm(name, include="*.pt", options=options)
    assert more.path == first.path
    assert sorted(os.listdir(more.path)) == sorted(FILES)
    weights = sum(len(content) for path, content in FILES.items() if path.endswith(".safetensors"))
    assert hub.served_bytes("model-0000") == weights, "what was there is kept"


@pytest.mark.usefixtures("hub")
def test_what_was_excluded_comes_from_the_hub(options: Options) -> None:
    fastload.warm(REPO, exclude="tokenizer*", options=options)
    assert sorted(os.listdir(fastload.warm(REPO, options=options).path)) == sorted(model_files())


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_asked_for_it_is_an_error(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """To go on with what is there would say that there is no more."""
    first = fastload.warm(REPO, options=options)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # discard: nobody listens
    with pytest.raises(fastload.NetworkError):
        fastload.warm(f"{REPO}@{first.commit}", include="*.pt", options=replace(options, deadline=4))
    assert fastload.warm(f"{REPO}@{first.commit}", options=options).path == first.path
