"""``from_pretrained`` through fastload: the same model, proven, and without a copy."""

from __future__ import annotations

import os
import runpy
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, modeling_utils, pipeline

import fastload
from fastload.integrations.transformers import _reading, _Use, from_pretrained, patched
from hub_server import HubServer, Repo
from stored_models import COMMIT, write_cache
from tiny_models import PROMPTS, make_llama, make_mixtral

REPO = "org/tiny"


def _same(model: torch.nn.Module, folder: Path) -> None:
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def _is_read_into(tensor: torch.Tensor) -> bool:
    """True for memory that torch did not allocate, which is what it cannot resize."""
    return not tensor.untyped_storage().resizable()


@pytest.mark.parametrize("cls", [LlamaForCausalLM, AutoModelForCausalLM])
def test_the_model_is_the_same_and_its_parameters_are_what_was_read(cls: type, llama: Path) -> None:
    model = from_pretrained(cls, str(llama), dtype="auto")
    _same(model, llama)
    assert isinstance(model, LlamaForCausalLM)
    assert all(_is_read_into(parameter) for parameter in model.parameters())
    assert not any(_is_read_into(p) and p.numel() for p in LlamaForCausalLM(model.config).parameters())


def test_the_plan_of_the_example_for_torchrun_is_a_llamas() -> None:
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "torchrun_tp.py"))
    assert example["TP_PLAN"] == LlamaConfig().base_model_tp_plan


def test_a_name_on_a_mount_offline(llama: Path, tiers: Path) -> None:
    write_cache(tiers / "shared", REPO, COMMIT, {path.name: path.read_bytes() for path in llama.iterdir()})
    _same(from_pretrained(AutoModelForCausalLM, REPO, dtype="auto"), llama)


def test_local_files_only_asks_no_hub(llama: Path, tiers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a keyword of transformers, and means there that nothing is fetched."""
    files = {path.name: path.read_bytes() for path in llama.iterdir()}
    monkeypatch.setenv("FASTLOAD_TIERS", "local,shared,hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with HubServer({REPO: Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(fastload.ModelNotFoundError):
            from_pretrained(AutoModelForCausalLM, REPO, dtype="auto", local_files_only=True)
        assert hub.requests == []
        write_cache(tiers / "shared", REPO, COMMIT, files)
        _same(from_pretrained(AutoModelForCausalLM, REPO, dtype="auto", local_files_only=True), llama)
        assert hub.requests == []


def test_cache_dir_is_the_local_tier(llama: Path, tiers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for transformers: what the hub alone has is brought there."""
    monkeypatch.setenv("FASTLOAD_TIERS", "local,hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with HubServer({REPO: Repo({path.name: path.read_bytes() for path in llama.iterdir()})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        _same(from_pretrained(AutoModelForCausalLM, REPO, dtype="auto", cache_dir=tiers / "cache"), llama)
    assert fastload.resolve(REPO, options=fastload.Options(local=str(tiers / "cache"))).tier == "local"
    assert not (tiers / "local").exists()


def test_tied_weights_stay_tied_and_the_generation_config_is_read(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "tied", tie_word_embeddings=True)
    (folder / "generation_config.json").write_text('{"max_new_tokens": 17}')
    model = from_pretrained(AutoModelForCausalLM, str(folder), dtype="auto")
    _same(model, folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.generation_config.max_new_tokens == 17


def test_experts_that_transformers_merges(tmp_path: Path) -> None:
    folder = make_mixtral(tmp_path / "mixtral")
    _same(from_pretrained(AutoModelForCausalLM, str(folder), dtype="auto"), folder)


def test_another_dtype_is_cast_as_usual(llama: Path) -> None:
    model = from_pretrained(AutoModelForCausalLM, str(llama), dtype=torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_component_by_its_subfolder(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "pipeline" / "text_encoder")
    model = from_pretrained(AutoModelForCausalLM, str(tmp_path / "pipeline"), subfolder="text_encoder", dtype="auto")
    _same(model, folder)


def test_code_that_was_not_changed(llama: Path) -> None:
    own = modeling_utils.safe_open
    with patched():
        speaks = pipeline("text-generation", str(llama), dtype="auto")
    assert modeling_utils.safe_open is own
    assert all(_is_read_into(parameter) for parameter in speaks.model.parameters())
    assert speaks(PROMPTS[0], max_new_tokens=3)[0]["generated_text"].startswith(PROMPTS[0])


@pytest.mark.parametrize("evidence", ["manifest", "sha256"])
def test_a_wrong_byte_is_an_error(evidence: str, llama: Path, tiers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {path.name: path.read_bytes() for path in llama.iterdir()}
    snapshot = write_cache(tiers / "local", REPO, COMMIT, files)
    if evidence == "manifest":
        fastload.warm(REPO)
    shard = snapshot / "model-00003-of-00003.safetensors"
    with open(shard.resolve(), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([files[shard.name][-1] ^ 1]))
    with pytest.raises(fastload.IntegrityError, match=shard.name):
        from_pretrained(AutoModelForCausalLM, REPO, dtype="auto")


@pytest.mark.parametrize("given", ["its name", "its path"])
def test_a_wrong_block_is_mended_from_another_tier(given: str, llama: Path, tiers: Path) -> None:
    files = {path.name: path.read_bytes() for path in llama.iterdir()}
    write_cache(tiers / "shared", REPO, COMMIT, files)
    folder = Path(fastload.warm(REPO).path)
    shard = folder / "model-00003-of-00003.safetensors"
    with open(shard.resolve(), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([files[shard.name][-1] ^ 1]))
    _same(from_pretrained(AutoModelForCausalLM, REPO if given == "its name" else folder, dtype="auto"), llama)
    assert shard.read_bytes() == files[shard.name]


class _Meeting:
    """A class that is loaded in two threads, in which one begins within the other and ends after it."""

    def __init__(self, begin: threading.Event, go_on: threading.Event) -> None:
        self._begin, self._go_on = begin, go_on

    def from_pretrained(self, folder: str, **keywords: object) -> object:
        self._begin.set()
        assert self._go_on.wait(60)
        return AutoModelForCausalLM.from_pretrained(folder, **keywords)


def test_a_load_that_ends_takes_nothing_from_one_that_goes_on(llama: Path, tmp_path: Path) -> None:
    """Its bytes are proven all the same, and at the end transformers is what it was."""
    own = modeling_utils.safe_open
    damaged = tmp_path / "damaged"
    shutil.copytree(llama, damaged)
    fastload.verify(damaged, record=True)
    shard = min(damaged.glob("*.safetensors"))
    raw, status = bytearray(shard.read_bytes()), shard.stat()
    raw[-1] ^= 1
    shard.write_bytes(raw)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))  # else it is another file, and no damage
    first, second, third = threading.Event(), threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        outer = pool.submit(from_pretrained, _Meeting(first, second), str(llama), dtype="auto")
        assert first.wait(60)
        inner = pool.submit(from_pretrained, _Meeting(second, third), str(damaged), dtype="auto")
        _same(outer.result(120), llama)
        third.set()
        with pytest.raises(fastload.IntegrityError):
            inner.result(120)
    assert modeling_utils.safe_open is own


def test_weights_that_do_not_come_through_fastload_are_warned_of(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((llama / "config.json").read_bytes())
    torch.save(AutoModelForCausalLM.from_pretrained(llama, dtype="auto").state_dict(), folder / "pytorch_model.bin")
    from_pretrained(AutoModelForCausalLM, folder, dtype="auto")
    assert f"{folder}: no weights came through fastload" in caplog.text
    caplog.clear()
    from_pretrained(AutoModelForCausalLM, llama, dtype="auto")
    assert "no weights" not in caplog.text


def test_what_is_opened_past_fastload_does_not_count_as_proven(llama: Path) -> None:
    use = _Use(str(llama), None)
    with _reading(use):
        modeling_utils.safe_open(min(llama.glob("*.safetensors")), framework="np", device="cpu")
        assert use.opened == 0
        modeling_utils.safe_open(min(llama.glob("*.safetensors")), framework="pt", device="cpu")
        assert use.opened == 1
