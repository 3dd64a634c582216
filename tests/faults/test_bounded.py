"""A model that is larger than the memory cgroup: a smaller one than ``make test-faults`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bounded import QUICK, bring_and_stream
from memory_group import why_none

if TYPE_CHECKING:
    from pathlib import Path


def test_warm_and_stream(tmp_path: Path) -> None:
    if reason := why_none():
        pytest.skip(reason)
    bring_and_stream(tmp_path, QUICK).check()
