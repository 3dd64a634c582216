"""``examples/vllm_offline.py``, as a user runs it; but for compilation, which takes a minute on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stored_models import COMMIT, write_cache
from tiny_models import PROMPTS

EXAMPLE = Path(__file__).parents[2] / "examples" / "vllm_offline.py"
_UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1", "VLLM_USE_AOT_COMPILE": "0"}


def test_it_prints_what_a_model_on_a_mount_makes_of_each_prompt(llama: Path, tiers: Path) -> None:
    write_cache(tiers / "shared", "org/tiny", COMMIT, {path.name: path.read_bytes() for path in llama.iterdir()})
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "org/tiny", *PROMPTS],
        env=os.environ | _UNCOMPILED,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    said = [line for line in done.stdout.splitlines() if line.startswith(tuple(PROMPTS))]
    assert [line.startswith(prompt + " w") for line, prompt in zip(said, PROMPTS, strict=True)] == [True, True]
    assert f"from shared:{tiers / 'shared'}" in done.stdout
