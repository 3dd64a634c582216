"""Wheels that were brought to a machine without a network, unpacked where only one run finds them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade")


class Wheels:
    """Those below a folder, and where their content goes."""

    def __init__(self, source: str | None, site: Path, newer_site: Path) -> None:
        """``newer_site``: safetensors 0.9 must not hide the 0.8 that the tests are written for."""
        wheels = sorted(Path(source).rglob("*.whl")) if source else []
        newer = [wheel for wheel in wheels if wheel.name.startswith("safetensors-0.9")]
        self._parts = ((site, [wheel for wheel in wheels if wheel not in newer]), (newer_site, newer))
        self.count = len(wheels)

    def unpack(self, limit_s: float) -> list[str]:
        """Those that do not fit, or had no time left: their names."""
        end_s = time.monotonic() + limit_s
        return [name for folder, wheels in self._parts for name in _unpack(wheels, folder, end_s)]


def _unpack(wheels: Sequence[Path], folder: Path, end_s: float) -> list[str]:
    """All at once, which is fast; where one does not fit, one by one."""
    if not wheels or _fit(wheels, folder, end_s):
        return []
    return [wheel.name for wheel in wheels if not _fit([wheel], folder, end_s)]


def _fit(wheels: Sequence[Path], folder: Path, end_s: float) -> bool:
    command = [*_PIP, "--target", str(folder), *map(str, wheels)]
    try:
        run = subprocess.run(command, check=False, capture_output=True, timeout=max(0.0, end_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0
