"""Hostile input: only errors of ours leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz import doors, fuzz, hub_doors

if TYPE_CHECKING:
    from pathlib import Path


def test_files(tmp_path: Path) -> None:
    for door in doors(tmp_path):
        fuzz(door, 30).check()


def test_answers_of_a_hub(tmp_path: Path) -> None:
    with hub_doors(tmp_path) as found:
        for door in found:
            fuzz(door, 4).check()
