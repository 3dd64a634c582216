"""What vLLM was given for a model, as fastload takes it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options
from fastload.integrations.names import bring, is_name
from fastload.integrations.vllm.names import Model, bring_matches, find_folder, find_model, match_files
from hub_server import HubServer, Repo
from stored_models import COMMIT, OTHER_COMMIT, model_files, write_cache, write_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

REPO = "org/name"


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Two tiers, no hub."""
    return Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers="local,shared")


def _find(given: str, options: Options, names: Mapping[str, str] | None = None) -> Model:
    return find_model(given, None, names or {}, options)


def test_what_exists_is_a_path_as_it_is_for_vllm(
    tmp_path: Path, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "here", model_files())
    monkeypatch.chdir(tmp_path)
    assert _find("here", options) == Model(folder)
    assert not is_name("here")
    assert not is_name("s3://bucket/model")
    assert is_name(REPO)


def test_a_name_stays_one(tmp_path: Path, options: Options) -> None:
    write_cache(tmp_path / "shared", REPO, COMMIT, model_files())
    assert find_model(REPO, "main", {}, options) == Model(REPO, "main")


def test_the_path_that_stands_for_a_name_is_loaded_by_the_name(tmp_path: Path, options: Options) -> None:
    """So that it is kept, which is never done for a path."""
    path = str(write_cache(tmp_path / "shared", REPO, COMMIT, model_files()))
    assert _find(path, options, {path: REPO}) == Model(REPO)
    assert _find(path, options) == Model(Path(path))


def test_once_another_rank_has_kept_it_the_name_leads_there(tmp_path: Path, options: Options) -> None:
    path = str(write_cache(tmp_path / "shared", REPO, COMMIT, model_files()))
    fastload.warm(REPO, options=options)
    assert fastload.resolve(REPO, options=options).tier == "local"
    assert _find(path, options, {path: REPO}) == Model(REPO)


def test_without_mistrals_own_files_a_name_does_not_stand_for_the_path(tmp_path: Path, options: Options) -> None:
    """From which the config was taken, which is Mistral's too; ``warm`` brings one of the two copies of the weights."""
    files = {**model_files(), "consolidated.safetensors": model_files()["model-00001-of-00002.safetensors"]}
    path = str(write_cache(tmp_path / "shared", REPO, COMMIT, files))
    assert _find(path, options, {path: REPO}) == Model(REPO)
    brought = fastload.warm(REPO, options=options)
    assert not Path(brought.path, "consolidated.safetensors").exists()
    assert _find(path, options, {path: REPO}) == Model(Path(path))


def test_a_name_that_means_something_else_by_now_is_not_taken_for_the_path(tmp_path: Path, options: Options) -> None:
    """The config came from the path, and weights of another commit do not belong to it."""
    path = str(write_cache(tmp_path / "shared", REPO, COMMIT, model_files()))
    write_cache(tmp_path / "shared", REPO, OTHER_COMMIT, model_files(seed=1))
    assert _find(path, options, {path: REPO}) == Model(Path(path))
    shutil.rmtree(tmp_path / "shared")
    write_folder(Path(path), model_files())
    assert _find(path, options, {path: REPO}) == Model(Path(path))


@pytest.mark.parametrize("name", [REPO, f"{REPO}@v1", "short"])
def test_where_the_path_is_gone_the_name_finds_the_same_commit_elsewhere(
    name: str, tmp_path: Path, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount that went after the start, before a reload; or another machine, which never had that path."""
    config = tmp_path / "config.toml"
    config.write_text(f'[aliases]\nshort = ["{REPO}"]\n')
    monkeypatch.setenv("FASTLOAD_CONFIG", str(config))
    path = str(write_cache(tmp_path / "shared", REPO, COMMIT, model_files(), ref="v1"))
    write_cache(tmp_path / "local", REPO, COMMIT, model_files())
    write_cache(tmp_path / "local", REPO, OTHER_COMMIT, model_files(seed=1))  # what main means by now
    shutil.rmtree(tmp_path / "shared")
    found = find_model(path, "v1" if "@" in name else None, {path: name}, options)
    assert find_folder(found, options) == str(tmp_path / "local" / "models--org--name" / "snapshots" / COMMIT)


def test_where_the_path_is_gone_and_nobody_has_the_commit_it_is_what_is_missing(
    tmp_path: Path, options: Options
) -> None:
    path = str(write_cache(tmp_path / "shared", REPO, COMMIT, model_files()))
    write_cache(tmp_path / "local", REPO, OTHER_COMMIT, model_files(seed=1))
    shutil.rmtree(tmp_path / "shared")
    with pytest.raises(fastload.ModelNotFoundError, match=f"{REPO}@{COMMIT}"):
        _find(path, options, {path: REPO})
    plain = str(tmp_path / "shared" / "name")
    with pytest.raises(fastload.ModelNotFoundError, match="shared/name"):
        _find(plain, options, {plain: REPO})


def test_a_name_that_nobody_has_lists_all_places(tmp_path: Path, options: Options) -> None:
    with pytest.raises(fastload.ModelNotFoundError) as caught:
        bring(REPO, None, options)
    assert set(caught.value.searched) == {str(tmp_path / "local"), str(tmp_path / "shared")}


def test_files_are_those_of_the_first_pattern_that_matches_any(tmp_path: Path, options: Options) -> None:
    folder = write_folder(tmp_path / "m", {"a.pt": b"", "b.pt": b"", "head.safetensors": b"", "sub/c.pt": b""})
    assert match_files(str(folder), None, ["*.bin", "*.pt"]) == [Model(folder / "a.pt"), Model(folder / "b.pt")]
    assert match_files(str(folder), "sub", ["*.pt"]) == [Model(folder / "sub" / "c.pt")]
    assert match_files(str(folder), None, ["*.bin"]) == []
    assert find_folder(Model(folder), options) == str(folder)


def test_what_a_copy_of_a_plain_folder_lacks_is_found_in_that_folder_at_every_start(
    tmp_path: Path, options: Options
) -> None:
    """Its commit is known on the local tier alone, so that by it nobody is found who has the rest."""
    folder = write_folder(tmp_path / "shared" / "Headed", {**model_files(), "head.pt": b"pickled"})
    fastload.load("Headed", options=options)
    for _ in range(2):
        assert fastload.resolve("Headed", options=options).tier == "local"
        assert bring_matches(Model("Headed"), ["head.pt"], options) == str(folder)


@pytest.mark.parametrize("changed", ["config.json", "added.json"])
def test_but_not_in_one_that_is_another_model_by_now(tmp_path: Path, options: Options, changed: str) -> None:
    folder = write_folder(tmp_path / "shared" / "Headed", {**model_files(), "head.pt": b"pickled"})
    brought = fastload.warm("Headed", options=options)
    (folder / changed).write_text("{}")
    assert bring_matches(Model("Headed"), ["head.pt"], options) == brought.path


@pytest.mark.parametrize("transfer", ["ranged", "hub"])
def test_a_token_that_the_host_was_given_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: str
) -> None:
    """As ``from_pretrained(…, token=)`` and ``--hf-token``; true and false mean what they mean to the hub's tools."""
    options = Options(local=str(tmp_path / "local"), tiers="local,hub", transfer=transfer)
    repo, good = Repo(model_files(), is_gated=True), "hf_good"
    with HubServer({REPO: repo}, tokens={good: frozenset({REPO}), "hf_own": frozenset({REPO})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        with pytest.raises(fastload.AuthError, match="gated"):
            bring(REPO, None, options)
        monkeypatch.setenv("HF_TOKEN", "hf_own")
        with pytest.raises(fastload.AuthError, match="gated"):
            bring(REPO, None, options, token=False)
        monkeypatch.setenv("HF_TOKEN", "hf_bad")
        assert bring(REPO, None, options, token=good).tier == "local"
        options = replace(options, local=str(tmp_path / "other"))
        monkeypatch.setenv("HF_TOKEN", "hf_own")
        assert bring(REPO, None, options, token=True).tier == "local"
