"""Small C libraries that stand before the C library's functions, for what strace cannot play."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def why_none() -> str | None:
    """Why there can be none here."""
    return None if shutil.which("gcc") else "gcc is not installed"


def build_library(folder: Path, source: str) -> Path:
    """``source``, as a library in ``folder``."""
    code, library = folder / "shim.c", folder / "shim.so"
    code.write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(code)], check=True)
    return library
