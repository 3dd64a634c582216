"""Which files of a folder are the checkpoint: one row per folder that people really have."""

from __future__ import annotations

import pytest

from fastload._format.select import (
    ByIndex,
    ByName,
    Selection,
    by_rule,
    check_numbers,
    list_variants,
    order_by_numbers,
    select_files,
)
from fastload._verify.path import is_index
from fastload.errors import FormatError, UsageError

INDEX = "model.safetensors.index.json"
TWO = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
TWO_FP16 = ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"]
TWO_FP16_BEFORE = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]


def select(names: list[str], variant: str | None = None) -> Selection:
    """What is loaded of a folder ``/m`` with these files."""
    return select_files(names, variant=variant, path="/m")


CHOSEN: dict[str, tuple[list[str], str | None, Selection]] = {
    "one file": (["config.json", "model.safetensors"], None, ByName(("model.safetensors",))),
    "one file of any name": (["lora.safetensors"], None, ByName(("lora.safetensors",))),
    "one file beside others": (["model.safetensors", "extra.safetensors"], None, ByName(("model.safetensors",))),
    "diffusers": (
        ["diffusion_pytorch_model.safetensors", "x.safetensors"],
        None,
        ByName(("diffusion_pytorch_model.safetensors",)),
    ),
    "shards in name order": ([*reversed(TWO), "config.json"], None, ByName(tuple(TWO))),
    "all, where none is called model": (
        ["b.safetensors", "a.safetensors"],
        None,
        ByName(("a.safetensors", "b.safetensors")),
    ),
    "an index": ([INDEX, *TWO], None, ByIndex(INDEX)),
    "an index beside consolidated": ([INDEX, *TWO, "consolidated.safetensors"], None, ByIndex(INDEX)),
    "an index beside one file": ([INDEX, *TWO, "model.safetensors"], None, ByIndex(INDEX)),
    "an index without shards": ([INDEX], None, ByIndex(INDEX)),
    "an index of any name": (
        ["llama.safetensors.index.json", "x.safetensors"],
        None,
        ByIndex("llama.safetensors.index.json"),
    ),
    "two indexes, one called model": ([INDEX, "consolidated.safetensors.index.json"], None, ByIndex(INDEX)),
    "a diffusers index": (
        ["diffusion_pytorch_model.safetensors.index.json", "x.safetensors.index.json"],
        None,
        ByIndex("diffusion_pytorch_model.safetensors.index.json"),
    ),
    "an index of .bin files beside safetensors": (
        ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "model.safetensors"],
        None,
        ByName(("model.safetensors",)),
    ),
    "variants, none asked for": (["model.safetensors", "model.fp16.safetensors"], None, ByName(("model.safetensors",))),
    "a number behind a shard's, which is no variant": (
        ["model-00001-of-00002.1.safetensors"],
        None,
        ByName(("model-00001-of-00002.1.safetensors",)),
    ),
    "a variant": (["model.safetensors", "model.fp16.safetensors"], "fp16", ByName(("model.fp16.safetensors",))),
    "shards and shards of a variant": ([*TWO, *TWO_FP16], None, ByName(tuple(TWO))),
    "shards of a variant": ([*TWO, *TWO_FP16], "fp16", ByName(tuple(TWO_FP16))),
    "shards of a variant, the older spelling": ([*TWO, *TWO_FP16_BEFORE], "fp16", ByName(tuple(TWO_FP16_BEFORE))),
    "an index of a variant": (
        [INDEX, "model.safetensors.index.fp16.json", *TWO, *TWO_FP16],
        "fp16",
        ByIndex("model.safetensors.index.fp16.json"),
    ),
    "an index, and a variant without one": (
        [INDEX, *TWO, "model.fp16.safetensors"],
        "fp16",
        ByName(("model.fp16.safetensors",)),
    ),
    "an index of a variant that was not asked for": (
        ["model.safetensors.index.fp16.json", *TWO_FP16, "model.safetensors"],
        None,
        ByName(("model.safetensors",)),
    ),
    "a number in the name is no variant": (["Qwen2.5-7B.safetensors"], None, ByName(("Qwen2.5-7B.safetensors",))),
    "a version in the name is no variant": (["v1.5.safetensors"], None, ByName(("v1.5.safetensors",))),
    "a variant that begins with a digit": (
        ["model.safetensors", "model.8bit.safetensors"],
        "8bit",
        ByName(("model.8bit.safetensors",)),
    ),
    "a variant with dashes": (
        ["model.safetensors", "model.fp8-e4m3_v2.safetensors"],
        "fp8-e4m3_v2",
        ByName(("model.fp8-e4m3_v2.safetensors",)),
    ),
    "neither of them, where none was asked for": (
        ["model.safetensors", "model.8bit.safetensors", "model.fp8-e4m3.safetensors"],
        None,
        ByName(("model.safetensors",)),
    ),
    "shards of a variant with digits and dashes, both spellings": (
        ["model.4-bit-00001-of-00001.safetensors", "model-00001-of-00001.8-bit.safetensors"],
        "4-bit",
        ByName(("model.4-bit-00001-of-00001.safetensors",)),
    ),
    "its other spelling": (
        ["model.4-bit-00001-of-00001.safetensors", "model-00001-of-00001.8-bit.safetensors"],
        "8-bit",
        ByName(("model-00001-of-00001.8-bit.safetensors",)),
    ),
    "a variant with digits behind another name": (
        ["lora.safetensors", "lora.8bit.safetensors"],
        "8bit",
        ByName(("lora.8bit.safetensors",)),
    ),
    "an index of a variant with a dash": (
        ["model.safetensors.index.fp8-e4m3.json", "model.safetensors"],
        "fp8-e4m3",
        ByIndex("model.safetensors.index.fp8-e4m3.json"),
    ),
    "somebody's own numbers are no variants": (
        ["model.1.safetensors", "model.2.safetensors"],
        None,
        ByName(("model.1.safetensors", "model.2.safetensors")),
    ),
    "a variant of a name with a dot": (
        ["model.v1.fp16.safetensors", "model.fp16.safetensors"],
        "fp16",
        ByName(("model.fp16.safetensors",)),
    ),
    "what macOS leaves beside a file": (
        ["._model.safetensors", "._x.safetensors.index.json", "a.safetensors", "._a.safetensors"],
        None,
        ByName(("a.safetensors",)),
    ),
    "hidden": ([".safetensors"], None, ByName((".safetensors",))),
    "one shard of one": (["model-00001-of-00001.safetensors"], None, ByName(("model-00001-of-00001.safetensors",))),
    "consolidated beside shards without an index": (
        [*TWO, "consolidated.safetensors"],
        None,
        ByName(("consolidated.safetensors", *TWO)),
    ),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_files_are_chosen(case: str) -> None:
    names, variant, expected = CHOSEN[case]
    assert select(names, variant) == expected
    assert select(names[::-1], variant) == expected


@pytest.mark.parametrize("variant", [None, "fp16", "a.b", "json", "", "é", "-"])
def test_whatever_variant_is_asked_for_its_index_counts_as_one(variant: str | None) -> None:
    """Else a signature could leave it out."""
    name = INDEX if variant is None else f"model.safetensors.index.{variant}.json"
    assert select([name], variant) == ByIndex(name)
    assert is_index(name)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ([], "Give the folder that holds the weights"),
        (["model_index.json", "unet"], "subfolder="),
        (["config.json", "pytorch_model.bin"], ".bin"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], ".bin"),
        (["llama-Q4_K_M.gguf"], ".gguf"),
        (["model.onnx", "a.pth", "tf_model.h5"], ".h5, .onnx, .pth"),
    ],
)
def test_no_weights_says_what_is_there_instead(names: list[str], hint: str) -> None:
    with pytest.raises(FormatError) as caught:
        select(names)
    assert hint in caught.value.hint
    assert all(name in caught.value.found for name in names)
    assert caught.value.path == "/m"


@pytest.mark.parametrize(
    ("missing", "of"),
    [((2,), 2), ((1,), 3), ((1, 2, 3), 4), (tuple(range(2, 100)), 99_999)],
)
def test_a_gap_in_a_numbered_set_is_refused(missing: tuple[int, ...], of: int) -> None:
    present = [
        f"m-{number:05}-of-{of:05}.safetensors" for number in range(1, 102) if number <= of and number not in missing
    ]
    with pytest.raises(FormatError, match=f"no {missing[0]}") as caught:
        select(present)
    assert caught.value.expected == f"all {of}"
    assert len(str(caught.value)) < 1000


def test_a_gap_is_seen_where_the_count_has_six_digits() -> None:
    """DeepSeek's ``model-00001-of-000163``: one of them alone is no model."""
    with pytest.raises(FormatError, match="no 2"):
        select(["model-00001-of-000163.safetensors"])


def test_a_gap_among_names_that_somebody_else_chose() -> None:
    check_numbers([*TWO, "model.safetensors", "2.safetensors"], "/m")
    with pytest.raises(FormatError, match="no 2"):
        check_numbers(["model.safetensors", TWO[0]], "/m")


def test_the_rule_as_one_of_those_who_choose() -> None:
    names = ["model.safetensors", "model.fp16.safetensors"]
    assert by_rule()(names, path="/m") == ByName((names[0],))
    assert by_rule("fp16")(names, path="/m") == ByName((names[1],))


def test_several_indexes_are_a_question_that_names_them() -> None:
    with pytest.raises(UsageError) as caught:
        select(["b.safetensors.index.json", "a\n.safetensors.index.json"])
    assert "b.safetensors.index.json" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("variant", ["bf16", "", "fp1", "FP16", "../fp16"])
def test_a_variant_that_is_not_there_is_refused_with_those_that_are(variant: str) -> None:
    with pytest.raises(UsageError, match="fp16"):
        select(["model.safetensors", "model.fp16.safetensors"], variant)


def test_only_a_variant_there_is_refused_without_asking_for_it() -> None:
    with pytest.raises(UsageError, match="only weights of a variant; there is: fp16"):
        select(["model.fp16.safetensors", "config.json"])


@pytest.mark.parametrize(
    "names",
    [
        ["model.8bit.safetensors", "model.fp16.safetensors"],
        ["model-00001-of-00001.8bit.safetensors", "model-00001-of-00001.fp16.safetensors"],
        ["diffusion_pytorch_model.8bit.safetensors", "diffusion_pytorch_model.fp16.safetensors"],
    ],
)
def test_two_variants_are_a_question_that_names_them(names: list[str]) -> None:
    with pytest.raises(UsageError, match="there is: 8bit, fp16") as caught:
        select(names)
    assert "variant=" in caught.value.hint


def test_names_from_the_folder_reach_no_message_as_they_are() -> None:
    for names in (["\x1b[2J\n.bin"], ["\x1b[2J-00001-of-00002.safetensors"]):
        with pytest.raises(FormatError) as caught:
            select(names)
        assert str(caught.value).isprintable()


def test_the_variants_that_are_there_by_their_shards_and_indexes() -> None:
    names = ["config.json", "model.fp16-00001-of-00002.safetensors", "model.safetensors.index.bf16.json", "tf.h5"]
    assert list_variants(names) == ["bf16", "fp16"]
    assert list_variants([*names, "a.safetensors.index.json"]) == [None, "bf16", "fp16"]
    assert list_variants(["._model.safetensors", "config.json"]) == []


def test_numbers_are_ordered_as_numbers() -> None:
    assert order_by_numbers(["part-10", "part-9", "a", "²1"]) == ["a", "part-9", "part-10", "²1"]
