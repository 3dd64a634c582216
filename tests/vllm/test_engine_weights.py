"""What an engine is made of must be what vLLM's own loader makes it of, to the byte."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import load_file, save_file

from engines import digests, engine, generate, outcome
from tiny_models import make_llama, make_mistral

if TYPE_CHECKING:
    from pathlib import Path

    from engines import Engines


def test_parameters_and_tokens_are_those_of_the_default_loader(engines: Engines, llama: Path) -> None:
    expected = engines.expected(str(llama))
    assert outcome(str(llama)) == expected


def test_other_weights_are_other_parameters_and_tokens(engines: Engines, llama: Path, tmp_path: Path) -> None:
    """Or else the comparison above says nothing."""
    expected, other = engines.expected(str(llama)), outcome(str(make_llama(tmp_path / "other", seed=1)))
    assert other.digests != expected.digests
    assert other.tokens != expected.tokens


def test_mistrals_own_format_goes_before_the_other(llama: Path, tmp_path: Path) -> None:
    """Its config by its ``params.json``, its weights by its own names, and other weights beside them."""
    both = shutil.copytree(llama, tmp_path / "both")
    make_mistral(both)
    options: dict[str, Any] = {"skip_tokenizer_init": True, "speaks": False}
    ours = outcome(str(both), **options)
    assert ours == outcome(str(both), "auto", **options)
    (both / "consolidated.safetensors").unlink()
    assert outcome(str(both), **options) != ours


def test_a_reload_takes_the_other_models_weights(engines: Engines, llama: Path, tmp_path: Path) -> None:
    other = make_llama(tmp_path / "other", seed=1)
    before, after = engines.expected(str(llama)), engines.expected(str(other))
    with engine(str(llama)) as llm:
        assert digests(llm) == before.digests
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(other)})
        assert (digests(llm), generate(llm)) == (after.digests, after.tokens)
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(llama)})
        assert digests(llm) == before.digests


def test_a_weight_that_is_missing_is_an_error(llama: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(llama, tmp_path / "copy")
    lost = "model.layers.2.input_layernorm.weight"
    path = copy / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shard = copy / index["weight_map"].pop(lost)
    path.write_text(json.dumps(index))
    tensors = load_file(shard)
    del tensors[lost]
    save_file(tensors, shard)
    with pytest.raises(ValueError, match=r"not initialized from checkpoint.*layers\.2\.input_layernorm"):
        outcome(str(copy))
