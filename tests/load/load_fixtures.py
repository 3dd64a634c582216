"""What tests of loading share; :mod:`conftest` has pytest read this."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from proven_models import Model


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """In no place yet."""
    from proven_models import Model  # not above: where there is no torch, other rooms are tested all the same

    return Model(tmp_path)
