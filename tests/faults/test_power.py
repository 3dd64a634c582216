"""Power is lost in the midst of ``warm``: a sample of what ``make test-faults`` does at hundreds of moments."""

from __future__ import annotations

import pytest

from arena import arena, in_memory
from disk import FILE_SYSTEMS, disk, why_none
from power import cut_recipes, cut_warms
from workers import shared_worker


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_at_random_moments(kind: str) -> None:
    if reason := why_none(kind):
        pytest.skip(reason)
    with (
        in_memory() as folder,
        arena(shared_worker(), folder, "mount") as place,
        disk(kind, folder, place.tiers.local) as made,
    ):
        cut_warms(place, made, 6).check()


def test_a_copy_with_a_marker_is_found_damaged() -> None:
    """So that what finds nothing in ``warm`` is known to find something."""
    if reason := why_none("ext4"):
        pytest.skip(reason)
    with (
        in_memory() as folder,
        arena(shared_worker(), folder, "mount") as place,
        disk("ext4", folder, place.tiers.local) as made,
    ):
        assert cut_recipes(place, made, 12).ends["damaged"]
