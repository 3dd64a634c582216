"""Models of other kinds: quantised, drafts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from engines import digest_draft, digests, engine, generate, outcome
from quantised_models import KINDS, make_quantised
from tiny_models import make_llama

if TYPE_CHECKING:
    from pathlib import Path

    from engines import Engines


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model(kind: str, engines: Engines, tmp_path: Path) -> None:
    model = str(make_quantised(tmp_path / kind, kind))
    expected = engines.expected(model)
    assert outcome(model) == expected


def test_a_draft_model_gets_its_own_weights(engines: Engines, llama: Path, tiers: Path, tmp_path: Path) -> None:
    """It shares the extra config with its target, which was started by a name."""
    shutil.copytree(llama, tiers / "shared" / "Target")
    shutil.copytree(make_llama(tmp_path / "draft", seed=1), tiers / "shared" / "Draft")
    drafted = {"method": "draft_model", "num_speculative_tokens": 2}
    with engine(str(llama), "safetensors", speculative_config={**drafted, "model": str(tmp_path / "draft")}) as llm:
        expected = digests(llm), llm.collective_rpc(digest_draft), generate(llm)
    with engine("Target", speculative_config={**drafted, "model": "Draft"}) as llm:
        assert (digests(llm), llm.collective_rpc(digest_draft), generate(llm)) == expected
    assert expected[0] != expected[1]
