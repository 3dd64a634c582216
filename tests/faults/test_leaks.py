"""Loads that leave nothing: fewer than ``make test-faults`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leaks import count_leaks, why_none

if TYPE_CHECKING:
    from pathlib import Path


def test_right_and_failing_loads(tmp_path: Path) -> None:
    if reason := why_none():
        pytest.skip(reason)
    row = count_leaks(tmp_path, 40)
    row.check()
    assert sum(count for end, count in row.ends.items() if end != "right") == 10, row.ends
