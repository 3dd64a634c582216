"""Names: what fastload finds, an engine starts from, offline, config and tokenizer too."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from vllm.engine.arg_utils import EngineArgs

import fastload
from engines import Outcome, digests, engine, generate
from hub_server import HubServer, Repo
from stored_models import COMMIT, write_cache, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from engines import Engines
    from vllm import LLM

REPO = "org/tiny"


@pytest.fixture
def files(llama: Path) -> dict[str, bytes]:
    """The tiny Llama's."""
    return {path.name: path.read_bytes() for path in llama.iterdir()}


@pytest.fixture
def alias(tiers: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An alias of the tiny Llama."""
    config = tiers / "config.toml"
    config.write_text(f'[aliases]\ntiny = ["org/elsewhere", "{REPO}"]\n')
    monkeypatch.setenv("FASTLOAD_CONFIG", str(config))
    return "tiny"


def _check(llm: LLM, name: str, expected: Outcome) -> None:
    assert (digests(llm), generate(llm)) == (expected.digests, expected.tokens)
    assert llm.llm_engine.vllm_config.model_config.served_model_name == name


def test_a_name_on_the_local_tier(engines: Engines, llama: Path, files: dict[str, bytes], tiers: Path) -> None:
    write_cache(tiers / "local", REPO, COMMIT, files)
    expected = engines.expected(str(llama))
    with engine(REPO) as llm:
        _check(llm, REPO, expected)


@pytest.mark.parametrize("name", [REPO, f"{REPO}@{COMMIT}"])
def test_a_name_only_on_a_mount_is_kept_in_the_same_pass(
    name: str, engines: Engines, llama: Path, files: dict[str, bytes], tiers: Path
) -> None:
    write_cache(tiers / "shared", REPO, COMMIT, files)
    expected = engines.expected(str(llama))
    with engine(name) as llm:
        _check(llm, name, expected)
    assert fastload.resolve(f"{REPO}@{COMMIT}").tier == "local"
    assert fastload.verify(f"{REPO}@{COMMIT}").evidence == "manifest"


def test_a_reload_when_the_mount_of_the_start_is_gone(
    engines: Engines, llama: Path, files: dict[str, bytes], tiers: Path
) -> None:
    """What was kept meanwhile is found by the name, though the config has the path on the mount."""
    write_cache(tiers / "shared", REPO, COMMIT, files)
    expected = engines.expected(str(llama))
    with engine(REPO) as llm:
        shutil.rmtree(tiers / "shared")
        llm.collective_rpc("reload_weights")
        _check(llm, REPO, expected)


def test_a_bare_name_of_a_folder_on_a_mount(
    engines: Engines, llama: Path, files: dict[str, bytes], tiers: Path
) -> None:
    write_folder(tiers / "shared" / "Tiny", files)
    expected = engines.expected(str(llama))
    with engine("Tiny") as llm:
        _check(llm, "Tiny", expected)
    assert fastload.resolve("Tiny").tier == "local"


def test_an_alias(alias: str, engines: Engines, llama: Path, files: dict[str, bytes], tiers: Path) -> None:
    write_cache(tiers / "shared", REPO, COMMIT, files)
    expected = engines.expected(str(llama))
    with engine(alias) as llm:
        _check(llm, alias, expected)


def test_a_name_only_on_the_hub_is_brought_once(
    engines: Engines, llama: Path, files: dict[str, bytes], tiers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own client is offline in this process, so that vLLM could not have found it."""
    expected = engines.expected(str(llama))
    monkeypatch.setenv("FASTLOAD_TIERS", "local,shared,hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with HubServer({REPO: Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with engine(REPO) as llm:
            _check(llm, REPO, expected)
        weights = sum(len(content) for name, content in files.items() if name.endswith(".safetensors"))
        assert hub.served_bytes("model-0000") == weights
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with engine(REPO) as llm:
        _check(llm, REPO, expected)


def test_without_fastload_the_same_name_starts_too(
    engines: Engines, llama: Path, files: dict[str, bytes], hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it brought lies where vLLM's own loader, offline, looks for it."""
    expected = engines.expected(str(llama))
    with HubServer({REPO: Repo(files)}) as hub, monkeypatch.context() as online:
        online.setenv("HF_ENDPOINT", hub.url)
        online.setenv("HF_HUB_OFFLINE", "0")
        with engine(REPO) as llm:
            _check(llm, REPO, expected)
    assert fastload.resolve(REPO).path.startswith(str(hub_cache))
    with engine(REPO, "safetensors") as llm:
        assert (digests(llm), generate(llm)) == (expected.digests, expected.tokens)


def test_a_models_config_without_an_engine(llama: Path, files: dict[str, bytes], tiers: Path) -> None:
    """``vllm launch render`` asks for no more."""
    folder = write_cache(tiers / "shared", REPO, COMMIT, files)
    arguments = EngineArgs(REPO, load_format="fastload", dtype="bfloat16")
    config = arguments.create_model_config()
    assert (config.model, config.tokenizer, config.served_model_name) == (str(folder), str(folder), REPO)
    with pytest.raises(LocalEntryNotFoundError):
        EngineArgs(REPO, load_format="safetensors").create_model_config()


def test_the_verifier_that_a_speculator_names(
    llama: Path, files: dict[str, bytes], tiers: Path, tmp_path: Path
) -> None:
    """VLLM takes its name from the speculator's config, when what was typed has been looked up already."""
    folder = str(write_cache(tiers / "shared", REPO, COMMIT, files))
    config = {
        "speculators_model_type": "eagle3",
        "architectures": ["Eagle3Speculator"],
        "transformer_layer_config": json.loads(files["config.json"]),
        "draft_vocab_size": 256,
        "speculators_config": {
            "proposal_methods": [{"speculative_tokens": 2}],
            "verifier": {"name_or_path": REPO},
        },
    }
    speculator = write_folder(tmp_path / "speculator", {"config.json": json.dumps(config).encode()})
    arguments = EngineArgs(str(speculator), load_format="fastload", dtype="bfloat16", max_model_len=128)
    made = arguments.create_engine_config()
    assert (made.model_config.model, made.model_config.tokenizer) == (folder, folder)
    assert made.model_config.served_model_name == REPO
    assert made.speculative_config.model == str(speculator)
    assert made.load_config.model_loader_extra_config == {"names": {folder: REPO}}


def test_a_name_that_nobody_has_says_where_it_was_looked_for(tiers: Path) -> None:
    with pytest.raises(fastload.ModelNotFoundError, match=str(tiers / "shared")), engine("org/nothing"):
        pass


def test_with_another_load_format_a_name_is_refused_as_without_fastload(
    alias: str, files: dict[str, bytes], tiers: Path
) -> None:
    write_cache(tiers / "shared", REPO, COMMIT, files)
    with pytest.raises(LocalEntryNotFoundError), engine(REPO, "safetensors"):
        pass


def test_an_unknown_setting_ends_the_start(llama: Path) -> None:
    with (
        pytest.raises(fastload.UsageError, match="Did you mean reader"),
        engine(str(llama), model_loader_extra_config={"raeder": "direct"}),
    ):
        pass


def test_settings_reach_the_load(llama: Path) -> None:
    with (
        pytest.raises(fastload.IntegrityError, match="verify is require"),
        engine(str(llama), model_loader_extra_config={"verify": "require"}),
    ):
        pass
