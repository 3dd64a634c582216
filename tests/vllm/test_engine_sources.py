"""Sources of a model other than all of its main files: what vLLM's own loader makes of them, this one does."""

from __future__ import annotations

import itertools
import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from vllm.config import LoadConfig, VllmConfig, set_current_vllm_config
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.weight_utils import _natural_sort_key

import fastload
from fastload._format.select import ByIndex
from fastload.integrations.vllm.files import select_as_vllm
from fastload.integrations.vllm.loader import FastloadLoader
from hub_server import HubServer, Repo
from stored_models import COMMIT, write_cache
from writing import write_index

if TYPE_CHECKING:
    from pathlib import Path

_SHARDS = {
    "model-00001-of-00002.safetensors": {"vision.a": torch.arange(3.0), "language_model.b": torch.arange(4.0)},
    "model-00002-of-00002.safetensors": {"language_model.c": torch.arange(5.0)},
}
_HEAD = {"weight": torch.arange(6.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards by an index; beside it a head as safetensors, one as torch saves it, and a tower in a subfolder."""
    for name, tensors in _SHARDS.items():
        save_file(tensors, tmp_path / name)
    write_index(tmp_path, {name: shard for shard, tensors in _SHARDS.items() for name in tensors})
    save_file(_HEAD, tmp_path / "head.safetensors")
    torch.save(_HEAD, tmp_path / "head.pt")
    (tmp_path / "tower").mkdir()
    save_file(_HEAD, tmp_path / "tower" / "model.safetensors")
    return tmp_path


def _load(loader: DefaultModelLoader, folder: Path | str, **source: Any) -> dict[str, torch.Tensor]:
    return dict(loader._get_weights_iterator(DefaultModelLoader.Source(str(folder), None, **source)))


def _load_both(folder: Path, **source: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    ours = _load(FastloadLoader(LoadConfig(load_format="fastload")), folder, **source)
    return ours, _load(DefaultModelLoader(LoadConfig(load_format="auto")), folder, **source)


INDEX = "model.safetensors.index.json"
CONSOLIDATED = "consolidated.safetensors"
_TWO = {"model-00001-of-00002.safetensors": ["a"], "model-00002-of-00002.safetensors": ["b"]}
FOLDERS: dict[str, dict[str, list[str]]] = {
    "one file": {"model.safetensors": ["a", "b"]},
    "shards": _TWO,
    "shards by their index": {**_TWO, INDEX: ["a", "b"], "other.safetensors": ["a", "c"]},
    "an index that does not name all": {
        **_TWO,
        "model-00001-of-00002.safetensors": ["a", "a_scale"],
        INDEX: ["a", "b"],
    },
    "an index of another name": {**_TWO, "other.safetensors.index.json": ["a"]},
    "Mistral's file alone": {CONSOLIDATED: ["layers.0"]},
    "Mistral's file beside one": {CONSOLIDATED: ["layers.0"], "model.safetensors": ["a", "b"]},
    "Mistral's file beside shards by their index": {CONSOLIDATED: ["layers.0"], **_TWO, INDEX: ["a", "b"]},
    "Mistral's shards": {"consolidated-1.safetensors": ["a"], "consolidated-2.safetensors": ["b"], **_TWO},
    "Mistral's shards by their index": {
        **{f"consolidated-0000{number}-of-00003.safetensors": [f"layers.{number}"] for number in (1, 2, 3)},
        "consolidated.safetensors.index.json": ["layers.1", "layers.2", "layers.3"],
        "model.safetensors": ["a"],
        CONSOLIDATED: ["layers.1"],
    },
    "a variant alone": {"model.fp16.safetensors": ["a", "b"]},
    "a variant beside the whole": {"model.fp16.safetensors": ["a", "b"], "model.safetensors": ["a", "b"]},
    "a file beside one": {"extra.safetensors": ["c"], "model.safetensors": ["a", "b"]},
    "a file of diffusers beside another": {"diffusion_pytorch_model.safetensors": ["a"], "other.safetensors": ["b"]},
    "numbers without zeros, and a name twice": {f"part-{number}.safetensors": ["a", str(number)] for number in (2, 10)},
    "a hidden file": {".hidden.safetensors": ["c"], "model.safetensors": ["a"]},
    "torch's own beside it": {"pytorch_model.bin": ["c"], "model.safetensors": ["a"]},
}


def _write(folder: Path, files: dict[str, list[str]]) -> None:
    """Tensors by file, of the file's own content; indexes by the shards that have what they name."""
    shards = {name: held for name, held in files.items() if name.endswith(".safetensors")}
    for number, (name, held) in enumerate(shards.items()):
        save_file({tensor: torch.full((3,), float(number)) for tensor in held}, folder / name)
    for name, held in files.items():
        if name.endswith(".json"):
            start = name.removesuffix(".safetensors.index.json") + "-"
            weight_map = {tensor: shard for shard, t in shards.items() if shard.startswith(start) for tensor in t}
            (folder / name).write_text(
                json.dumps({"weight_map": {tensor: weight_map.get(tensor, "") for tensor in held}})
            )
        elif name.endswith(".bin"):
            torch.save({tensor: torch.zeros(1) for tensor in held}, folder / name)


@pytest.mark.parametrize("case", FOLDERS)
def test_files_are_those_that_the_default_loader_takes(case: str, tmp_path: Path) -> None:
    _write(tmp_path, FOLDERS[case])
    ours, expected = _load_both(tmp_path)
    assert {name: tensor.tolist() for name, tensor in ours.items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }


_MAY_BE_THERE = [
    CONSOLIDATED,
    "consolidated-10.safetensors",
    "consolidated-9.safetensors",
    "consolidated.safetensors.index.json",
    INDEX,
    "model.safetensors",
    "model.fp16.safetensors",
    ".hidden.safetensors",
    "pytorch_model.bin",
]


@pytest.mark.parametrize("count", range(1, len(_MAY_BE_THERE) + 1))
def test_no_folder_is_another_one_to_the_default_loader(count: int, tmp_path: Path) -> None:
    """Of some names or others; by its index where that names what is there."""
    default, compared = DefaultModelLoader(LoadConfig(load_format="auto")), 0
    for number, names in enumerate(itertools.combinations(_MAY_BE_THERE, count)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            shard = name.removesuffix(".index.json")
            (folder / name).write_text(json.dumps({"weight_map": {"a": shard}}))
        try:
            found = default._prepare_weights(
                str(folder), None, None, fall_back_to_pt=True, allow_patterns_overrides=None
            )
        except (FileNotFoundError, RuntimeError):  # an index without its shard; nothing to load
            continue
        expected = [os.path.basename(path) for path in sorted(found[1], key=_natural_sort_key)]
        if expected == ["pytorch_model.bin"]:  # an error here, also where an index names shards that are lost
            continue
        chosen = select_as_vllm(names, path=str(folder))
        ours = [chosen.name.removesuffix(".index.json")] if isinstance(chosen, ByIndex) else list(chosen.names)
        assert ours == expected, names
        compared += 1
    assert compared > 0


def test_a_set_with_a_gap_is_an_error(tmp_path: Path) -> None:
    """The default loader takes what is there, and of quantised models nobody asks for what is missing."""
    _write(tmp_path, {"model-00001-of-00002.safetensors": ["a"]})
    with pytest.raises(fastload.FormatError, match="no 2"):
        _load(FastloadLoader(LoadConfig(load_format="fastload")), tmp_path)


def test_without_safetensors_the_error_says_what_is_there(tmp_path: Path) -> None:
    _write(tmp_path, {"pytorch_model.bin": ["a"]})
    with pytest.raises(fastload.FormatError, match=r"pytorch_model\.bin.*safetensors only"):
        _load(FastloadLoader(LoadConfig(load_format="fastload")), tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"prefix": "all."},
        {"prefix": "head.", "allow_patterns_overrides": ["head.pt"]},
        {"subfolder": "tower", "prefix": "tower."},
    ],
)
def test_names_and_tensors_are_those_of_the_default_loader(source: dict[str, Any], folder: Path) -> None:
    ours, expected = _load_both(folder, **source)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in expected.items())


def test_a_head_in_a_file_of_its_own(folder: Path) -> None:
    """The default loader of 0.27 takes no such file beside an index, so it is not asked."""
    loader = FastloadLoader(LoadConfig(load_format="fastload"))
    found = _load(loader, folder, prefix="head.", allow_patterns_overrides=["nothing*", "head.safetensors"])
    assert found.keys() == {"head.weight"}
    assert torch.equal(found["head.weight"], _HEAD["weight"])


def test_what_is_no_safetensors_is_said_to_be_unverified(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = FastloadLoader(LoadConfig(load_format="fastload"))
    _load(loader, folder, allow_patterns_overrides=["head.pt"])
    assert "unverified, since it is no safetensors" in caplog.text


@pytest.mark.skipif(not hasattr(DefaultModelLoader, "_init_mm_encoder_only_weight_filter"), reason="since vLLM 0.31")
def test_shards_of_a_language_model_that_is_left_out_are_not_read(folder: Path) -> None:
    loader = FastloadLoader(LoadConfig(load_format="fastload"))
    loader._encoder_only_lm_prefixes = ("language_model.",)
    assert _load(loader, folder).keys() == {"vision.a", "language_model.b"}


def test_experts_of_other_ranks_are_neither_given_nor_read(tmp_path: Path) -> None:
    experts = {f"layers.0.experts.{number}.w1.weight": torch.arange(1000.0) for number in range(4)}
    save_file({**experts, "layers.0.gate.weight": torch.arange(3.0)}, tmp_path / "model.safetensors")
    loaders = FastloadLoader(LoadConfig(load_format="fastload")), DefaultModelLoader(LoadConfig(load_format="hf"))
    for loader in loaders:
        loader.local_expert_ids = {1}
    ours, expected = (_load(loader, tmp_path) for loader in loaders)
    assert ours.keys() == expected.keys() == {"layers.0.experts.1.w1.weight", "layers.0.gate.weight"}
    assert loaders[0]._streams[-1].report.bytes == 4 * 1003


def test_a_secondary_source_stays_on_the_mount_where_the_weights_are_brought_up(
    folder: Path, tiers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name on a mount: write-through keeps the safetensors on the local tier, and then the name is found there."""
    monkeypatch.setenv("FASTLOAD_WRITE_THROUGH", "on")
    shard = "model-00001-of-00002.safetensors"
    files = {"model.safetensors": (folder / shard).read_bytes(), "head.pt": (folder / "head.pt").read_bytes()}
    mounted = write_cache(tiers / "shared", "org/headed", COMMIT, {**files, "config.json": b"{}"})
    extra = {"names": {str(mounted): "org/headed"}}
    for _ in range(2):
        loader = FastloadLoader(LoadConfig(load_format="fastload", model_loader_extra_config=dict(extra)))
        assert _load(loader, mounted).keys() == _SHARDS[shard].keys()
        found = _load(loader, mounted, prefix="head.", allow_patterns_overrides=["head.pt"])
        assert torch.equal(found["head.weight"], _HEAD["weight"])
        assert fastload.resolve("org/headed").tier == "local"


class _Hasty(torch.nn.Module):
    """Takes the first tensor, and asks for no more."""

    def load_weights(self, weights: Any) -> set[str]:
        return {next(iter(weights))[0]}


class _Whole(torch.nn.Module):
    """Takes all."""

    def load_weights(self, weights: Any) -> set[str]:
        return {name for name, _ in weights}


@pytest.mark.parametrize("model", [_Hasty(), _Whole()])
def test_what_was_done_is_said_once_wherever_the_model_stops_asking(
    model: torch.nn.Module, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = SimpleNamespace(
        model=str(folder),
        revision=None,
        quantization="none",
        multimodal_config=None,
        is_moe=False,
        runner_type="generate",
    )
    with set_current_vllm_config(VllmConfig()), caplog.at_level("INFO", "vllm.fastload"):
        FastloadLoader(LoadConfig(load_format="fastload")).load_weights(model, config)
    assert sum("GB from path" in line for line in caplog.messages) == 1


def test_a_secondary_source_that_only_the_hub_has_is_brought(
    folder: Path, tiers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model whose safetensors alone were brought, as ``warm`` does."""
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX, "head.pt")
    files = {name: (folder / name).read_bytes() for name in names}
    monkeypatch.setenv("FASTLOAD_TIERS", "local,hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with HubServer({"org/headed": Repo({**files, "tower/tower.pt": files["head.pt"]})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        loader = FastloadLoader(LoadConfig(load_format="fastload"))
        assert len(_load(loader, "org/headed")) == 3
        for source in (
            {"allow_patterns_overrides": ["head.pt"]},
            {"allow_patterns_overrides": ["*.safetensors", "*.pt"], "subfolder": "tower"},
        ):
            found = _load(loader, "org/headed", **source)
            assert torch.equal(found["weight"], _HEAD["weight"])
