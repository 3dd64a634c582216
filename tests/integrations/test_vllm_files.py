"""Which files count where vLLM asks; tests/vllm compare with what it takes itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options
from fastload._fetch.checkpoint.fetch import fetch
from fastload._fetch.find.model import Source
from fastload._format.select import Layered, LayeredByIndex, Selection
from fastload.errors import FormatError
from fastload.integrations.vllm.files import find_index_name, is_mistrals, select_as_vllm
from fastload.options import decide_settings
from hub_server import HubServer, Repo
from stored_models import COMMIT, model_files, write_cache
from writing import pack

if TYPE_CHECKING:
    from pathlib import Path

INDEX, MISTRALS_INDEX = "model.safetensors.index.json", "consolidated.safetensors.index.json"
ONE, MISTRALS, HALF = "model.safetensors", "consolidated.safetensors", "model.fp16.safetensors"
TWO = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]

CASES: dict[str, tuple[list[str], Selection]] = {
    "an index": ([INDEX, *TWO, "other.safetensors"], LayeredByIndex(INDEX)),
    "Mistral's beside an index": ([INDEX, *TWO, MISTRALS], Layered((MISTRALS,))),
    "Mistral's index": ([MISTRALS_INDEX, INDEX, ONE, MISTRALS], LayeredByIndex(MISTRALS_INDEX)),
    "Mistral's index without its files": ([MISTRALS_INDEX, ONE], Layered((ONE,))),
    "a variant": ([HALF, "config.json"], Layered((HALF,))),
    "a variant that the whole overrules": ([ONE, HALF], Layered((HALF, ONE))),
    "numbers": (["a10.safetensors", "a9.safetensors"], Layered(("a9.safetensors", "a10.safetensors"))),
    "a digit that is no number": (["²1.safetensors"], Layered(("²1.safetensors",))),
    "hidden": ([".a.safetensors", ONE], Layered((ONE,))),
    "an index whose shards are lost": ([INDEX], LayeredByIndex(INDEX)),
}


@pytest.mark.parametrize("case", CASES)
def test_files_by_their_names(case: str) -> None:
    names, expected = CASES[case]
    assert select_as_vllm(names, path="/m") == expected
    assert select_as_vllm(sorted(names, reverse=True), path="/m") == expected


def test_a_gap_is_an_error_without_an_index_alone() -> None:
    assert select_as_vllm([INDEX, TWO[1]], path="/m") == LayeredByIndex(INDEX)
    with pytest.raises(FormatError, match="no 1"):
        select_as_vllm(TWO[1:], path="/m")


def test_no_safetensors_is_an_error_that_says_what_is_there() -> None:
    with pytest.raises(FormatError, match=r"weights\.bin"):
        select_as_vllm(["weights.bin"], path="/m")


def _write_with_index(folder: Path, shards: dict[str, list[str]], weight_map: dict[str, str]) -> Path:
    for number, (name, tensors) in enumerate(shards.items()):
        (folder / name).write_bytes(pack({tensor: ("U8", [1], bytes([number])) for tensor in tensors}))
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({"a": "9.safetensors", "b": "10.safetensors"}, {"a": 0, "a_scale": 0, "b": 1, "both": 1}),
        ({"a": "10.safetensors", "b": "9.safetensors"}, {"a": 0, "a_scale": 0, "b": 1, "both": 1}),
        ({"a": "9.safetensors"}, {"a": 0, "a_scale": 0, "both": 0}),
    ],
)
def test_an_index_chooses_files_and_no_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight_map: dict[str, str], expected: dict[str, int]
) -> None:
    """It is read for no more; of quantised weights whose scales it did not name, nobody would miss these."""
    shards = {"9.safetensors": ["a", "a_scale", "both"], "10.safetensors": ["b", "both"]}
    folder = _write_with_index(tmp_path, shards, weight_map)
    assert _find_tensors(Source(str(folder), select=select_as_vllm), Options()) == expected
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with HubServer({"org/name": Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        assert _find_tensors(Source("org/name", select=select_as_vllm), Options(tiers="hub")) == expected


def _find_tensors(source: Source, options: Options) -> dict[str, int]:
    """The tensors that count, and the number of the shard, by its name."""
    fetched = fetch(source, decide_settings(options, {}))
    fetched.close()
    checkpoint = fetched.checkpoint
    return {
        tensor.name: int(checkpoint.shards[number].name == "10.safetensors") for number, tensor in checkpoint.tensors()
    }


def test_elsewhere_an_index_counts_and_what_it_leaves_out_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _write_with_index(tmp_path, {ONE: ["a", "a_scale"]}, {"a": ONE})
    assert fastload.load(folder).keys() == {"a"}
    assert f"{str(folder)!r}: left out, since the index does not name it: 1 tensor ('a_scale')" in caplog.text
    caplog.clear()
    fastload.load(folder / ONE)
    assert "left out" not in caplog.text


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
