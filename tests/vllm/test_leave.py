"""docs/leave.md: what fastload has brought, transformers and vLLM load from the hub's cache, offline, by themselves."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import fastload
from engines import digests, engine, generate
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from engines import Engines

REPO = "org/model"
_PAGE = Path(__file__).parents[2] / "docs" / "leave.md"


@pytest.fixture
def left(llama: Path, hub_cache: Path, tmp_path: Path) -> Path:
    """A cache that fastload filled from a mount, after the page's last commands."""
    write_cache(tmp_path / "shared", REPO, COMMIT, {path.name: path.read_bytes() for path in llama.iterdir()})
    where = fastload.Options(shared=str(tmp_path / "shared"), tiers="local,shared")
    fastload.warm(REPO, options=where)
    (removal,) = re.findall(r"^(find .*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert any(hub_cache.rglob(".fastload"))
    script = f"set -eu\nHOME={shlex.quote(str(tmp_path))}\ncache={shlex.quote(str(hub_cache))}\n{removal}"
    subprocess.run(["sh", "-c", script], check=True)
    assert not any("fastload" in path.name for path in hub_cache.rglob("*"))
    return hub_cache


def test_transformers_goes_on(left: Path, llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(REPO, revision=COMMIT, dtype="auto")
    expected = AutoModelForCausalLM.from_pretrained(llama, dtype="auto").state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert AutoTokenizer.from_pretrained(REPO, revision=COMMIT).vocab_size > 0


def test_vllm_goes_on(left: Path, llama: Path, engines: Engines) -> None:
    expected = engines.expected(str(llama))
    with engine(REPO, "auto", revision=COMMIT) as llm:
        assert (digests(llm), generate(llm)) == (expected.digests, expected.tokens)
