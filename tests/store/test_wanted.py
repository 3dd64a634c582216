"""What one wish chose, and whether another one is met by it: said only where it is sure."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastload
from fastload import FormatError, UsageError
from fastload._store.offer import OfferedFile
from fastload._store.wanted import Wish, check_has_weights, matches, parse_globs, parse_wish

GLOBS = st.text("ab*?[]!", min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("narrow", "wide"), [("*Q4*.gguf", "*.gguf"), ("m-?.gguf", "m-*"), ("m.gguf", "*.gguf"), ("[ab].pt", "[ab].pt")]
)
def test_a_narrower_glob_is_met(narrow: str, wide: str) -> None:
    assert Wish(include=(narrow,)).is_met_by(Wish(include=(wide,)), [])


@given(GLOBS, GLOBS, st.text("ab", max_size=5))
def test_what_is_met_by_a_glob_matches_nothing_more(narrow: str, wide: str, path: str) -> None:
    if Wish(include=(narrow,)).is_met_by(Wish(include=(wide,)), []) and matches(path, (narrow,)):
        assert matches(path, (wide,))


def test_a_glob_is_not_met_by_what_it_happens_to_match() -> None:
    assert not Wish(include=("*.gguf",)).is_met_by(Wish(include=("*Q4*.gguf",)), ["m-Q4.gguf"])


@pytest.mark.parametrize(("narrow", "wide"), [("*", "?"), ("[ab]b", "*b]b"), ("?", "[!a]")])
def test_a_glob_whose_text_happens_to_match_is_not_met(narrow: str, wide: str) -> None:
    assert not Wish(include=(narrow,)).is_met_by(Wish(include=(wide,)), [])


@pytest.mark.parametrize("path", ["tokenizer.model.v3", "bpe.codes", "text_encoder/tokenizer.model.v7m1"])
def test_a_tokenizer_is_taken_however_it_is_called(path: str) -> None:
    assert [file.path for file in Wish().choose([OfferedFile(path=path, size=1)])] == [path]


TOP = {"config.json", "model.safetensors"}
DENSE = {"2_Dense/config.json", "2_Dense/pytorch_model.bin"}


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (TOP | DENSE | {"modules.json"}, set()),
        (TOP | DENSE | {"modules.json", "2_Dense/model.safetensors"}, {"2_Dense/pytorch_model.bin"}),
        (TOP | DENSE | {"modules.json", "pytorch_model.bin"}, {"pytorch_model.bin"}),
        (TOP | {"modules.json", "openvino/openvino_model.bin"}, {"openvino/openvino_model.bin"}),
        (TOP | {"model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.bin"}, set()),
        (TOP | DENSE, {"2_Dense/pytorch_model.bin"}),
        (DENSE | {"modules.json", "pytorch_model.bin"}, {"2_Dense/pytorch_model.bin", "pytorch_model.bin"}),
        (TOP | {"mask_embedding.pt", "sparse_linear.pt", "training_args.bin"}, {"training_args.bin"}),
        (TOP | {"modules.json", "original/config.json", "original/c.pth"}, {"original/config.json", "original/c.pth"}),
    ],
)
def test_torchs_weights_are_taken_where_no_safetensors_stand_for_them(names: set[str], left_out: set[str]) -> None:
    chosen = Wish().choose(OfferedFile(path=name, size=1) for name in names)
    assert names - {file.path for file in chosen} == left_out


def test_a_component_of_torchs_can_be_excluded() -> None:
    names = TOP | DENSE | {"modules.json"}
    chosen = Wish(exclude=("*.bin",)).choose(OfferedFile(path=name, size=1) for name in names)
    assert "2_Dense/pytorch_model.bin" not in {file.path for file in chosen}


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["model.Q4.gguf"], "--include '*.gguf'"),
        (["pytorch_model.bin"], "--include '*.bin'"),
        (["onnx/model.onnx", "onnx/model.onnx_data"], "--include '*.onnx' --include '*.onnx_data'"),
        (["original/model.safetensors"], "--include '*.safetensors'"),
    ],
)
def test_the_advice_brings_the_weights_that_are_there(names: list[str], advice: str) -> None:
    offered = [OfferedFile(path=name, size=1) for name in ("config.json", *names)]
    with pytest.raises(FormatError) as caught:
        check_has_weights(Wish(), offered, "here")
    assert caught.value.hint.endswith(f": {advice}")
    check_has_weights(parse_wish(shlex.split(advice)[1::2], ()), offered, "here")


def test_what_macos_leaves_is_brought_only_where_it_is_asked_for() -> None:
    names = ["._model.safetensors", "unet/._config.json", "a._b.json"]
    files = [OfferedFile(path=name, size=1) for name in names]
    assert [file.path for file in Wish().choose(files)] == ["a._b.json"]
    assert len(Wish(("._*",)).choose(files)) == 2


@pytest.mark.parametrize("globs", [3, [3], b"x", None, "", ["*.gguf", ""]])
def test_what_are_no_globs_are_refused_by_the_name_of_the_argument(globs: Any) -> None:
    for act in (
        lambda: fastload.warm("org/name", include=globs),
        lambda: fastload.warm("org/name", exclude=globs),
        lambda: fastload.verify("org/name", include=globs),
    ):
        with pytest.raises(UsageError, match=r"clude=.*Give globs"):
            act()
    assert parse_globs("include", "*.gguf") == parse_globs("include", ["*.gguf"]) == ("*.gguf",)


@given(
    GLOBS | st.text("a1*?/.", max_size=6),
    st.text("ab*/.", max_size=5),
    st.lists(st.sampled_from(["a", "b", "a.1"])),
)
def test_what_a_glob_leaves_out_it_may_leave_out(glob: str, name: str, texts: list[str]) -> None:
    path = "".join(texts.pop() if mark == "*" and texts else mark.strip("*") for mark in name)
    if matches(path, (glob,)):
        assert Wish(exclude=(glob,)).may_leave_out(name)


@pytest.mark.parametrize(
    ("glob", "name", "may"),
    [
        ("*.fp16.*", "*.fp16.safetensors", True),
        ("*.fp16.*", "*.bf16.safetensors", False),
        ("vae/*", "vae/*.safetensors", True),
        ("vae/*", "unet/*.safetensors", False),
        ("*.md", "*.safetensors", False),
        ("*.fp16.*", "*.safetensors", False),
        ("Qwen2.5*", "*.safetensors", True),
        ("Qwen2.5*", "*.fp16.safetensors", True),
        ("model-0000?-of*", "*.safetensors", True),
        ("*/*.bin", "vae/*.safetensors", False),
        ("[v]ae/*", "vae/*.safetensors", True),
        ("model.safetensors", "*.safetensors", True),
        ("", "*.safetensors", False),
    ],
)
def test_whether_a_glob_may_leave_out_what_is_known_in_part(glob: str, name: str, may: bool) -> None:  # noqa: FBT001 - a case
    assert Wish(exclude=(glob,)).may_leave_out(name) == may


def test_two_wishes_are_one_where_they_leave_out_the_same() -> None:
    joined = Wish(("*.bin",), ("tok*",)).joined(Wish(("*.gguf", "*.bin"), ("tok*",)))
    assert joined == Wish(("*.gguf", "*.bin"), ("tok*",))


def test_two_wishes_that_leave_out_other_files_are_two() -> None:
    """What both leave out, for a glob each, neither has chosen."""
    assert Wish((), ("tok*",)).joined(Wish((), ("*.json",))) is None
    assert Wish(("*.gguf",)).joined(Wish((), ("*.gguf",))) is None
