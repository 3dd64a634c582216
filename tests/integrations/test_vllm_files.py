"""Which files count where vLLM asks; tests/vllm compare with what it takes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options
from fastload._fetch.checkpoint import fetch
from fastload._fetch.fetched import Source
from fastload._format.select import ByIndex, Layered, Selection
from fastload.errors import FormatError
from fastload.integrations.vllm.files import find_index_name, is_mistrals, select_as_vllm
from fastload.options import decide_settings
from stored_models import COMMIT, model_files, write_cache
from writing import pack

if TYPE_CHECKING:
    from pathlib import Path

INDEX, MISTRALS_INDEX = "model.safetensors.index.json", "consolidated.safetensors.index.json"
ONE, MISTRALS, HALF = "model.safetensors", "consolidated.safetensors", "model.fp16.safetensors"
TWO = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]

CASES: dict[str, tuple[list[str], Selection]] = {
    "an index": ([INDEX, *TWO, "other.safetensors"], ByIndex(INDEX)),
    "Mistral's beside an index": ([INDEX, *TWO, MISTRALS], Layered((MISTRALS,))),
    "Mistral's index": ([MISTRALS_INDEX, INDEX, ONE, MISTRALS], ByIndex(MISTRALS_INDEX)),
    "Mistral's index without its files": ([MISTRALS_INDEX, ONE], Layered((ONE,))),
    "a variant": ([HALF, "config.json"], Layered((HALF,))),
    "a variant that the whole overrules": ([ONE, HALF], Layered((HALF, ONE))),
    "numbers": (["a10.safetensors", "a9.safetensors"], Layered(("a9.safetensors", "a10.safetensors"))),
    "a digit that is no number": (["²1.safetensors"], Layered(("²1.safetensors",))),
    "hidden": ([".a.safetensors", ONE], Layered((ONE,))),
    "an index whose shards are lost": ([INDEX], ByIndex(INDEX)),
}


@pytest.mark.parametrize("case", CASES)
def test_files_by_their_names(case: str) -> None:
    names, expected = CASES[case]
    assert select_as_vllm(names, path="/m") == expected
    assert select_as_vllm(sorted(names, reverse=True), path="/m") == expected


def test_a_gap_is_an_error_without_an_index_alone() -> None:
    assert select_as_vllm([INDEX, TWO[1]], path="/m") == ByIndex(INDEX)
    with pytest.raises(FormatError, match="no 1"):
        select_as_vllm(TWO[1:], path="/m")


def test_no_safetensors_is_an_error_that_says_what_is_there() -> None:
    with pytest.raises(FormatError, match=r"weights\.bin"):
        select_as_vllm(["weights.bin"], path="/m")


def test_mistrals_own_files_are_weights() -> None:
    assert is_mistrals([ONE, "consolidated-1.safetensors"])
    assert not is_mistrals([ONE, MISTRALS_INDEX, "consolidated.00.pth"])
    assert (find_index_name([MISTRALS]), find_index_name([ONE])) == (MISTRALS_INDEX, INDEX)


def test_a_file_that_is_lost_is_brought_back_before_they_are_chosen(tmp_path: Path) -> None:
    """Or else the others would be taken for all that there is."""
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers="local,shared")
    files = {**model_files(), MISTRALS: pack({"layers.0": ("U8", [4], b"1234")})}
    write_cache(tmp_path / "shared", "org/name", COMMIT, files)
    brought = fastload.warm("org/name", include="consolidated*", options=options)
    (tmp_path / "local" / "models--org--name" / "snapshots" / COMMIT / MISTRALS).unlink()
    fetched = fetch(Source("org/name", select=select_as_vllm), decide_settings(options, {}))
    fetched.close()
    assert (fetched.folder, [shard.name for shard in fetched.checkpoint.shards]) == (brought.path, [MISTRALS])
