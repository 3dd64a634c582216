"""Beside vLLM: no requirement of either is hurt by the other."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires


def test_pip_finds_nothing_to_say_of_fastload() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert "fastload" not in done.stdout


def test_vllm_brings_what_fastload_needs() -> None:
    """So `pip install --no-deps` is enough in its image."""
    ours = {re.split("[<>=]", name)[0] for name in requires("fastload-llm") or () if "extra ==" not in name}
    for name in ours:
        assert subprocess.run([sys.executable, "-m", "pip", "show", "--quiet", name], check=False).returncode == 0
