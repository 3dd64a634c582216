"""A copy from which ``--exclude`` has left weights out gives way to a tier that has them, or says how to get them."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from fastload import FormatError, ModelNotFoundError, Options, UsageError
from hub_server import HubServer, Repo
from models import assert_same
from proven_models import REPO, Model
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from pathlib import Path

FIRST = "model-00001-of-00002.safetensors"
LEFT_OUT = [((), (FIRST,)), (("*.gguf",), ("*.safetensors", "*.index.json"))]
"""One shard; all of them."""
CURE = f"fastload warm {REPO}@{COMMIT} brings the rest"
LEFT_OUT_HINT = f"This copy was brought with --exclude: {CURE}"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """On a mount, with more than one checkpoint."""
    made = Model(tmp_path)
    made.files |= {"extra.gguf": b"gguf", "sub/model.safetensors": made.files[FIRST]}
    made.files["text/config.json"] = b"{}"
    made.files["model.fp16.safetensors"] = made.files[FIRST]
    write_cache(made.shared, REPO, COMMIT, made.files)
    return made


def _alone(model: Model) -> Options:
    return replace(model.options, tiers=("local",))


@pytest.mark.parametrize(("include", "exclude"), LEFT_OUT)
def test_the_next_tier_serves_with_a_warning(
    model: Model, include: tuple[str, ...], exclude: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    fastload.warm(REPO, include=include, exclude=exclude, options=model.options)
    with caplog.at_level(logging.WARNING, logger="fastload"):
        weights = fastload.load(REPO, options=replace(model.options, write_through="off"))
    assert_same(weights, model.tensors)
    assert (weights.report.tier, weights.report.commit_learnt) == (f"shared:{model.shared}", "local")
    assert "local was passed over" in caplog.text and "--exclude" in caplog.text
    assert_same(dict(fastload.stream(REPO, options=model.options)), model.tensors)


@pytest.mark.parametrize(("include", "exclude"), LEFT_OUT)
def test_where_no_other_tier_has_it_the_error_says_what_brings_it(
    model: Model, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    snapshot = fastload.warm(REPO, include=include, exclude=exclude, options=model.options)
    with pytest.raises(FormatError) as caught:
        fastload.load(REPO, options=_alone(model))
    assert caught.value.exit_code == 17 and CURE in caught.value.hint
    with pytest.raises(FormatError, match=CURE):
        fastload.load(snapshot.path)
    fastload.warm(f"{REPO}@{COMMIT}", options=model.options)
    assert_same(fastload.load(REPO, options=_alone(model)), model.tensors)


def test_a_variant_or_a_subfolder_that_was_left_out_comes_from_the_next_tier(model: Model) -> None:
    fastload.warm(REPO, exclude=("*.fp16.*", "sub/*"), options=model.options)
    options = replace(model.options, write_through="off")
    first = fastload.load(REPO, variant="fp16", options=options)
    assert_same(first, fastload.load(REPO, subfolder="sub", options=options))
    with pytest.raises(UsageError, match=CURE):
        fastload.load(REPO, variant="fp16", options=_alone(model))
    with pytest.raises(ModelNotFoundError, match=CURE):
        fastload.load(REPO, subfolder="sub", options=_alone(model))


def test_what_a_copy_has_it_serves(model: Model) -> None:
    fastload.warm(REPO, exclude="tokenizer*", options=model.options)
    assert fastload.load(REPO, options=model.options).report.tier == "local"


def test_a_copy_with_all_of_it_keeps_its_own_words(model: Model) -> None:
    fastload.warm(REPO, options=model.options)
    with pytest.raises(UsageError) as caught:
        fastload.load(REPO, variant="bf16", options=model.options)
    assert caught.value.hint == "Choose one with variant="


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"variant": "nope"}, UsageError, "Choose one with variant="),
        ({"subfolder": "subb"}, ModelNotFoundError, "There is: 'sub', 'text'"),
        ({"subfolder": "../x"}, UsageError, "Give a folder inside the model"),
        ({"subfolder": "/x"}, UsageError, "Give a folder inside the model"),
        ({"subfolder": "\ud800"}, UsageError, "Give a folder inside the model"),
    ],
)
def test_a_mistake_that_no_file_cures_asks_nobody(
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    error: type[UsageError | ModelNotFoundError],
    words: str,
) -> None:
    """``*.fp16.*`` has left out no weights of another variant; nothing whose name lies outside can be had."""
    fastload.warm(REPO, exclude=("*.md", "*.fp16.*", "unet/*"), options=model.options)
    with HubServer({REPO: Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(error) as caught:
            fastload.load(REPO, options=replace(model.options, tiers=("local", "hub")), **asked)
        assert vars(caught.value)["hint"] == words
        assert not hub.requests


def test_what_the_next_tier_says_is_not_there_is_not_said_to_be_left_out(model: Model) -> None:
    fastload.warm(REPO, exclude=("*.md", "s*/*"), options=model.options)
    with pytest.raises(ModelNotFoundError, match=f"There is: 'text'. {LEFT_OUT_HINT}") as caught:
        fastload.load(REPO, subfolder="submarine", options=_alone(model))
    with pytest.raises(ModelNotFoundError) as caught:
        fastload.load(REPO, subfolder="submarine", options=model.options)
    assert caught.value.hint == "There is: 'text'"


def test_a_tier_that_lacks_it_too_does_not_say_that_it_is_not_there(model: Model, tmp_path: Path) -> None:
    fastload.warm(REPO, exclude="sub/*", options=model.options)
    fastload.warm(REPO, exclude="sub/*", to=str(tmp_path / "second"), options=model.options)
    options = replace(model.options, shared=(str(tmp_path / "second"),))
    with pytest.raises(ModelNotFoundError, match=CURE):
        fastload.load(REPO, subfolder="sub", options=options)


def test_a_shard_that_is_wrong_itself_is_not_said_to_be_left_out(model: Model) -> None:
    write_cache(model.local, REPO, COMMIT, {**model.files, "sub/model.safetensors": b"\0" * 100})
    snapshot = model.local / f"models--org--name/snapshots/{COMMIT}"
    write_stamp(model, {"exclude": ["*.fp16.*", "sub/*"]})
    with pytest.raises(FormatError) as caught:
        fastload.load(snapshot, subfolder="sub")
    assert "fastload warm" not in caught.value.hint


def write_stamp(model: Model, wish: dict[str, Any]) -> None:
    """Say that the copy on the local tier was brought by ``wish``."""
    stamp = model.local / f"models--org--name/.fastload/stamps/{COMMIT}.json"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps({"schema": 1, "files": {}, "wish": wish}))


def test_a_copy_of_what_may_have_lacked_some_does_not_say_that_exclude_left_it_out(model: Model) -> None:
    """``sub`` is not there, and nobody could say whether the commit has it."""
    write_cache(model.local, REPO, COMMIT, {name: file for name, file in model.files.items() if "/" not in name})
    write_stamp(model, {"sure": False})
    with pytest.raises(ModelNotFoundError, match="This copy may lack some of the model") as caught:
        fastload.load(REPO, subfolder="sub", options=_alone(model))
    assert CURE in caught.value.hint and "clude" not in caught.value.hint
    assert fastload.load(REPO, subfolder="sub", options=model.options).report.tier == f"shared:{model.shared}"


def test_what_one_of_two_wishes_would_have_brought_is_not_there(model: Model) -> None:
    """Their copies were made one: only what both leave out is left out."""
    fastload.warm(REPO, exclude="*.fp16.*", options=model.options)
    fastload.warm(REPO, exclude="sub/*", options=model.options)
    with pytest.raises(UsageError) as caught:
        fastload.load(REPO, variant="bf16", options=model.options)
    assert caught.value.hint == "Choose one with variant="
    assert fastload.load(REPO, variant="fp16", options=_alone(model)).report.tier == "local"


def test_write_through_keeps_the_rest(model: Model) -> None:
    fastload.warm(REPO, exclude=FIRST, options=model.options)
    fastload.load(REPO, options=replace(model.options, write_through="on"))
    again = fastload.load(REPO, options=_alone(model))
    assert_same(again, model.tensors)
    assert again.report.evidence == "manifest"
    assert os.path.exists(model.local / f"models--org--name/snapshots/{COMMIT}/{FIRST}")
