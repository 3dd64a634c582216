"""A copy from which ``--exclude`` has left weights out gives way to a tier that has them, or says how to get them."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import FormatError, ModelNotFoundError, Options, UsageError
from models import assert_same
from proven_models import REPO, Model
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from pathlib import Path

FIRST = "model-00001-of-00002.safetensors"
LEFT_OUT = [((), (FIRST,)), (("*.gguf",), ("*.safetensors", "*.index.json"))]
"""One shard; all of them."""
CURE = f"fastload warm {REPO}@{COMMIT} brings the rest"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """On a mount, with more than one checkpoint."""
    made = Model(tmp_path)
    made.files |= {"extra.gguf": b"gguf", "sub/model.safetensors": made.files[FIRST]}
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


def test_write_through_keeps_the_rest(model: Model) -> None:
    fastload.warm(REPO, exclude=FIRST, options=model.options)
    fastload.load(REPO, options=replace(model.options, write_through="on"))
    again = fastload.load(REPO, options=_alone(model))
    assert_same(again, model.tensors)
    assert again.report.evidence == "manifest"
    assert os.path.exists(model.local / f"models--org--name/snapshots/{COMMIT}/{FIRST}")
