"""Files that change under a load, in processes of their own: a sample of what ``make test-faults`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from changed import change_under_loads
from workers import shared_worker

if TYPE_CHECKING:
    from pathlib import Path


def test_random_cases(tmp_path: Path) -> None:
    change_under_loads(shared_worker(torch=True), tmp_path, 10).check()
