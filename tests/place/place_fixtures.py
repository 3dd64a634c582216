"""What tests of placing share; :mod:`conftest` has pytest read this."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pretended_cuda import Machine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """With a pretended device, whose work is done in one order of those that are allowed."""
    from pretended_cuda import pretended_cuda  # not above: where there is no torch, other rooms are tested all the same

    with pretended_cuda(monkeypatch, random.Random(0)) as machine:  # noqa: S311 - a schedule
        yield machine
