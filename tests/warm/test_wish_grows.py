"""``warm`` with a larger wish than before: what is missing of it comes from who has it, not from what is there."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options
from hub_server import HubServer, Repo
from stored_models import model_files, write_cache

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


def brought(snapshot: fastload.Snapshot) -> list[str]:
    """What is in the folder."""
    return sorted(os.listdir(snapshot.path))


def test_a_wider_glob_is_not_met_by_what_a_narrower_one_brought(
    monkeypatch: pytest.MonkeyPatch, options: Options
) -> None:
    files = {"m-Q4.gguf": b"4" * 100, "m-Q8.gguf": b"8" * 100, "config.json": b"{}"}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HubServer({REPO: Repo(files)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        first = fastload.warm(REPO, include="*Q4*.gguf", options=options)
        assert brought(first) == ["config.json", "m-Q4.gguf"]
        assert brought(fastload.warm(f"{REPO}@{first.commit}", include="*.gguf", options=options)) == sorted(files)
        requests = len(server.requests)
        fastload.warm(f"{REPO}@{first.commit}", include=["*Q8*.gguf", "m-Q4.gguf"], options=options)
        assert len(server.requests) == requests, "the narrower glob and the name are known to be met"


@pytest.fixture
def shared(options: Options, tmp_path: Path) -> Options:
    """With a mount between."""
    return replace(options, shared=str(tmp_path / "shared"), tiers="local,shared,hub")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("is_local_first", [False, True])
def test_a_mount_that_was_brought_without_it_does_not_give_it(is_local_first: bool, shared: Options) -> None:  # noqa: FBT001
    fastload.warm(REPO, to="shared", options=shared)
    if is_local_first:
        fastload.warm(REPO, options=shared)
    assert brought(fastload.warm(REPO, include="*.pt", options=shared)) == sorted(FILES)


@pytest.mark.usefixtures("hub")
def test_what_a_mount_was_brought_without_comes_from_the_hub(shared: Options) -> None:
    fastload.warm(REPO, to="shared", exclude="tokenizer*", options=shared)
    assert brought(fastload.warm(REPO, options=shared)) == sorted(model_files())


def test_a_mount_that_has_it_gives_it_once_the_hub_has_said_so(hub: HubServer, shared: Options, tmp_path: Path) -> None:
    """As an older client of the hub leaves it: with all files, and no word of which there are."""
    write_cache(tmp_path / "shared", REPO, hub.repos[REPO].commit, FILES)
    snapshot = fastload.warm(REPO, include="*.pt", options=shared)
    assert brought(snapshot) == sorted(FILES)
    assert snapshot.report is not None
    assert snapshot.report.tier == f"shared:{tmp_path / 'shared'}"
    assert hub.served_bytes("/resolve/") == 0
    requests = len(hub.requests)
    assert fastload.warm(f"{REPO}@{snapshot.commit}", include="*.pt", options=shared).report is None
    assert len(hub.requests) == requests


@pytest.mark.usefixtures("hub")
def test_without_a_hub_to_ask_the_mount_serves_and_the_hub_adds_to_it_later(shared: Options) -> None:
    fastload.warm(REPO, to="shared", options=shared)
    offline = replace(shared, tiers="local,shared")
    assert brought(fastload.warm(REPO, include="*.pt", options=offline)) == sorted(model_files())
    again = fastload.warm(REPO, include="*.pt", options=offline)
    assert again.report is None, "nothing was to do"
    assert brought(fastload.warm(f"{REPO}@{again.commit}", include="*.pt", options=shared)) == sorted(FILES)
