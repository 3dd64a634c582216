"""What each tier is called in reports, JSON, logs and manifests, byte for byte, and which tier is called so."""

from __future__ import annotations

import pytest

from fastload._tier import HUB, LOCAL, PATH, Tier, TierKind, parse_tier, shared_tier

TEXTS = [
    (LOCAL, "local"),
    (HUB, "hub"),
    (PATH, "path"),
    (shared_tier("/mnt/models"), "shared:/mnt/models"),
    (shared_tier("/mnt/a:b c"), "shared:/mnt/a:b c"),
    (Tier(TierKind.RANK, "3"), "rank 3"),
]


@pytest.mark.parametrize(("tier", "text"), TEXTS)
def test_a_tier_has_one_text_and_the_text_one_tier(tier: Tier, text: str) -> None:
    assert str(tier) == f"{tier}" == text
    assert parse_tier(text) == tier


@pytest.mark.parametrize("text", ["", "lokal", "Local", "ranks 3"])
def test_what_no_tier_is_called_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid TierKind"):
        parse_tier(text)


def test_one_mount_is_not_another() -> None:
    assert shared_tier("/a") == shared_tier("/a") != shared_tier("/b")
    assert [tier.mount for tier in (LOCAL, HUB, PATH, shared_tier("/a"))] == [None, None, None, "/a"]
    assert [tier.is_lower for tier in (LOCAL, HUB, PATH, shared_tier("/a"))] == [False, True, False, True]
