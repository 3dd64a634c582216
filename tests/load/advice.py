"""What a warning of a manifest that is passed over advises, done word by word."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADVICE = re.compile(r"(?:First: (.+); then, if that is not enough|To make a new one): (.+)$", re.MULTILINE)


def follow_advice(said: str, environment: Mapping[str, str]) -> None:
    """Run what the first warning in ``said`` advises, in a shell that finds this fastload under its name."""
    advice = _ADVICE.search(said)
    assert advice is not None, said
    for command in filter(None, advice.groups()):
        words = f'fastload() {{ "{sys.executable}" -m fastload "$@"; }}; {command}'
        subprocess.run(["sh", "-c", words], check=True, env=environment)
