"""The recipe that many use: copy the files, then write a marker. What it is worth is told beside what ``warm`` is."""

from __future__ import annotations

import shutil
from pathlib import Path

MARKER = ".complete"


def bring(source: str, target: str) -> int:
    """Copy all files, and say that they are there. Nothing is synced."""
    Path(target).mkdir()
    for path in sorted(Path(source).iterdir()):
        shutil.copy(path, target)
    (Path(target) / MARKER).touch()
    return 0


def find_damage(target: Path, files: dict[str, bytes]) -> str | None:
    """What a reader who trusts the marker is given; None too where there is no marker."""
    if not (target / MARKER).exists():
        return None
    for name, content in files.items():
        found = (target / name).read_bytes() if (target / name).exists() else None
        if found != content:
            return f"{name} has {'gone' if found is None else f'{len(found):,} of {len(content):,} bytes'}"
    return None
