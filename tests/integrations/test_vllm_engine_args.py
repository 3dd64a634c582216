"""Names in arguments such as vLLM's: which become folders, and whose errors stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from fastload.integrations.vllm.engine_args import wrap
from hub_server import HubServer, Repo
from stored_models import COMMIT, model_files, write_cache

if TYPE_CHECKING:
    from pathlib import Path


class OfflineError(Exception):
    """What the hub's client says while it is offline."""


@dataclass
class _EngineArgs:
    """What the plugin touches of vLLM's, which tests/vllm have the whole of."""

    model: str
    load_format: str = "fastload"
    revision: str | None = None
    tokenizer: str | None = None
    served_model_name: str | list[str] | None = None
    download_dir: str | None = None
    spec_model: str | None = None
    speculative_config: dict[str, Any] | None = None
    model_loader_extra_config: dict[str, Any] = field(default_factory=dict)

    def create_engine_config(self) -> _EngineArgs:
        return self


@pytest.fixture
def arg_utils(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A wrapped module."""

    def get_model_path(model: str, revision: str | None = None) -> str:
        if model == "org/cached":
            return "/cache/org/cached"
        raise OfflineError(model)

    made = ModuleType("arg_utils")
    monkeypatch.setattr(_EngineArgs, "create_engine_config", _EngineArgs.create_engine_config)  # undone at the end
    made.get_model_path, made.EngineArgs = get_model_path, _EngineArgs  # type: ignore[attr-defined]
    wrap(made)
    return made


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared tier, which the environment names."""
    monkeypatch.setenv("FASTLOAD_SHARED", str(tmp_path / "shared"))
    monkeypatch.setenv("FASTLOAD_TIERS", "local,shared")
    return tmp_path / "shared"


def _create(arg_utils: ModuleType, model: str, **arguments: Any) -> _EngineArgs:
    """As vLLM does while it is offline."""
    made = arg_utils.EngineArgs(model, **arguments)
    made.model = arg_utils.get_model_path(made.model, made.revision)
    if made.tokenizer is not None:
        made.tokenizer = arg_utils.get_model_path(made.tokenizer)
    created: _EngineArgs = made.create_engine_config()
    return created


def test_a_name_becomes_its_folder_and_stays_the_served_name(arg_utils: ModuleType, mount: Path) -> None:
    folder = str(write_cache(mount, "org/name", COMMIT, model_files()))
    created = _create(arg_utils, "org/name", tokenizer="org/name")
    assert (created.model, created.tokenizer, created.served_model_name) == (folder, folder, "org/name")
    assert created.model_loader_extra_config == {"names": {folder: "org/name"}}
    assert created.create_engine_config() == created


def test_a_served_name_that_was_given_stays(arg_utils: ModuleType, mount: Path) -> None:
    write_cache(mount, "org/name", COMMIT, model_files())
    assert _create(arg_utils, "org/name", served_model_name=["mine"]).served_model_name == ["mine"]


def test_a_revision_goes_along(arg_utils: ModuleType, mount: Path) -> None:
    folder = str(write_cache(mount, "org/name", COMMIT, model_files(), ref="v1"))
    created = _create(arg_utils, "org/name", revision="v1")
    assert created.model_loader_extra_config["names"] == {folder: "org/name@v1"}


@pytest.mark.parametrize("is_flag", [True, False])
def test_a_draft_model_too(arg_utils: ModuleType, mount: Path, is_flag: bool) -> None:  # noqa: FBT001
    target = str(write_cache(mount, "org/name", COMMIT, model_files()))
    draft = str(write_cache(mount, "org/draft", COMMIT, model_files(seed=1)))
    if is_flag:
        created = _create(arg_utils, "org/name", spec_model="org/draft")
        assert created.spec_model == draft
    else:
        created = _create(arg_utils, "org/name", speculative_config={"model": "org/draft"})
        assert created.speculative_config == {"model": draft}
    assert created.model_loader_extra_config["names"] == {target: "org/name", draft: "org/draft"}


@pytest.mark.parametrize("draft", [{"load_format": "auto"}, {}, SimpleNamespace(load_format="auto")])
def test_a_draft_model_that_is_loaded_otherwise_is_left_to_vllm(arg_utils: ModuleType, mount: Path, draft: Any) -> None:
    """Its weights may be such as fastload cannot load, and it need not be where fastload looks."""
    target = str(write_cache(mount, "org/name", COMMIT, model_files()))
    write_cache(mount, "org/draft", COMMIT, {"config.json": b"{}", "pytorch_model.bin": b"pickled"})
    speculative = {"model": "org/draft", "draft_load_config": draft}
    created = _create(arg_utils, "org/name", speculative_config=speculative)
    assert (created.model, created.speculative_config) == (target, speculative)


@pytest.mark.parametrize("is_flag", [True, False])
@pytest.mark.parametrize("target_format", ["auto", "fastload"])
def test_a_draft_model_alone_by_fastload(
    arg_utils: ModuleType,
    mount: Path,
    target_format: str,
    is_flag: bool,  # noqa: FBT001
) -> None:
    """By settings of its own, which tell its loader the name, too."""
    draft = str(write_cache(mount, "org/draft", COMMIT, model_files(seed=1)))
    load = {"load_format": "fastload", "model_loader_extra_config": {"reader": "buffered"}}
    written = {"draft_load_config": load} | ({} if is_flag else {"model": "org/draft"})
    keywords = {"spec_model": "org/draft"} if is_flag else {}
    made = arg_utils.EngineArgs(str(mount), load_format=target_format, speculative_config=written, **keywords)
    created = made.create_engine_config()
    assert created.speculative_config["draft_load_config"] == {
        "load_format": "fastload",
        "model_loader_extra_config": {"reader": "buffered", "names": {draft: "org/draft"}},
    }
    assert (created.spec_model if is_flag else created.speculative_config["model"]) == draft
    assert created.model_loader_extra_config == {}
    assert load["model_loader_extra_config"] == {"reader": "buffered"}


def test_a_draft_models_config_may_be_an_object(arg_utils: ModuleType, mount: Path) -> None:
    draft = str(write_cache(mount, "org/draft", COMMIT, model_files(seed=1)))
    load = SimpleNamespace(load_format="fastload", model_loader_extra_config={}, download_dir=None)
    speculative = {"model": "org/draft", "draft_load_config": load}
    created = arg_utils.EngineArgs(str(mount), "auto", speculative_config=speculative).create_engine_config()
    assert created.speculative_config["draft_load_config"].model_loader_extra_config == {"names": {draft: "org/draft"}}
    assert load.model_loader_extra_config == {}


def test_with_another_load_format_the_error_is_the_one_without_fastload(arg_utils: ModuleType, mount: Path) -> None:
    write_cache(mount, "org/name", COMMIT, model_files())
    with pytest.raises(OfflineError):
        _create(arg_utils, "org/name", load_format="auto")


def test_with_another_load_format_what_the_hubs_client_finds_is_what_it_is(arg_utils: ModuleType) -> None:
    created = _create(arg_utils, "org/cached", load_format="auto")
    assert (type(created.model), created.model, created.served_model_name) == (str, "/cache/org/cached", None)


def test_a_tokenizer_that_only_the_hub_could_have_is_an_error_as_ever(arg_utils: ModuleType, mount: Path) -> None:
    write_cache(mount, "org/name", COMMIT, model_files())
    with pytest.raises(OfflineError, match="org/tokenizer"):
        _create(arg_utils, "org/name", tokenizer="org/tokenizer")


def test_a_path_is_left_as_it_is(arg_utils: ModuleType, mount: Path) -> None:
    folder = str(write_cache(mount, "org/name", COMMIT, model_files()))
    created = arg_utils.EngineArgs(folder).create_engine_config()
    assert (created.model, created.served_model_name, created.model_loader_extra_config) == (folder, None, {})


def test_a_setting_that_does_not_exist_is_said_before_anything_starts(arg_utils: ModuleType, mount: Path) -> None:
    with pytest.raises(fastload.UsageError, match="no setting 'raeder'"):
        _create(arg_utils, "org/name", model_loader_extra_config={"raeder": "direct"})


@pytest.mark.parametrize(
    "speculative",
    [
        {"model": "ngram"},
        {"model": "[ngram]"},
        {"model": "suffix"},
        {"model": "ngram_gpu", "method": "ngram_gpu"},
        {"model": "pkg.mod.Proposer"},
        {"model": "proposer", "method": "custom_class"},
    ],
)
def test_what_speculates_without_a_draft_model_is_no_name(
    arg_utils: ModuleType, mount: Path, speculative: dict[str, Any]
) -> None:
    write_cache(mount, "org/name", COMMIT, model_files(0))
    assert _create(arg_utils, "org/name", speculative_config=speculative).speculative_config == speculative


def test_what_the_caller_wrote_stays_as_it_is(arg_utils: ModuleType, mount: Path) -> None:
    for name in ("org/name", "org/draft"):
        write_cache(mount, name, COMMIT, model_files(0))
    written = {"model": "org/draft"}
    assert _create(arg_utils, "org/name", speculative_config=written).speculative_config != written
    assert written == {"model": "org/draft"}


def test_the_token_of_hf_token_is_sent(arg_utils: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what only the hub has, which the workers find on the local tier then."""
    monkeypatch.setenv("FASTLOAD_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("FASTLOAD_TIERS", "local,hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    good = "hf_good"
    with HubServer({"org/gated": Repo(model_files(), is_gated=True)}, tokens={good: frozenset({"org/gated"})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        made = arg_utils.EngineArgs("org/gated")
        with pytest.raises(fastload.AuthError):
            made.create_engine_config()
        made.hf_token = good
        assert made.create_engine_config().model.startswith(str(tmp_path / "local"))
