"""How staging is divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._budget import Headroom
from fastload._load.target.staging import Staging, cut_window, divide_staging
from fastload.errors import UsageError

MIB = 1 << 20
PLENTY = Headroom("all", 1 << 50)


def test_wish_that_fits_is_granted() -> None:
    wish = Staging(4, 2, 16 * MIB)
    assert divide_staging(256 * MIB, PLENTY, wish) == wish


def test_slots_shrink_before_lanes_go() -> None:
    assert divide_staging(64 * MIB, PLENTY, Staging(4, 2, 16 * MIB)) == Staging(4, 2, 8 * MIB)
    assert divide_staging(16 * MIB, PLENTY, Staging(4, 2, 16 * MIB)) == Staging(2, 2, 4 * MIB)


def test_headroom_counts_too() -> None:
    assert divide_staging(256 * MIB, Headroom("cgroup", 256 * MIB), Staging(4, 2, 16 * MIB)) == Staging(4, 2, 4 * MIB)


@given(st.integers(0, 1 << 32), st.integers(0, 1 << 40), st.integers(1, 64), st.sampled_from([1, 2]))
def test_never_more_than_the_setting(staging_bytes: int, headroom: int, lanes: int, slots: int) -> None:
    wish = Staging(lanes, slots, 16 * MIB)
    try:
        staging = divide_staging(staging_bytes, Headroom("some", headroom), wish)
    except UsageError:
        assert staging_bytes < slots * 4 * MIB
    else:
        assert staging.bytes <= staging_bytes
        assert 1 <= staging.lanes <= lanes
        assert staging.slot_bytes % (4 * MIB) == 0


def test_nothing_fits() -> None:
    with pytest.raises(UsageError, match="at least 8,388,608"):
        divide_staging(MIB, PLENTY, Staging(1, 2, 16 * MIB))


def test_each_that_sends_must_have_its_lane() -> None:
    wish = Staging(3 + 2, 1, 8 * MIB)
    assert divide_staging(12 * MIB, PLENTY, wish, least_lanes=3) == Staging(3, 1, 4 * MIB)
    assert divide_staging(12 * MIB, Headroom("cgroup", 0), wish, least_lanes=3) == Staging(3, 1, 4 * MIB)
    with pytest.raises(UsageError, match="at least 12,582,912, one lane for each of 2 ranks"):
        divide_staging(12 * MIB - 1, PLENTY, wish, least_lanes=3)


def test_reading_ahead_leaves_most_of_the_room() -> None:
    assert cut_window(256 * MIB, PLENTY) == 256 * MIB
    assert cut_window(256 * MIB, Headroom("cgroup", 360 * MIB)) == 90 * MIB
    assert cut_window(256 * MIB, Headroom("cgroup", 0)) == 0
