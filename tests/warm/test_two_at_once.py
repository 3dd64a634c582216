"""Two models at once that do not fit together, and a second run of one that our own transfer has brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hub_server import HubServer, Repo
from stored_models import COMMIT, write_cache
from warming import MIB, Tiers, large_shard, tree

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("org/a", "org/b")


def test_of_two_that_do_not_fit_together_one_is_told_the_numbers(tmp_path: Path) -> None:
    tiers = Tiers(tmp_path, more={"FASTLOAD_LOCAL_MAX_BYTES": "40Mi", "FASTLOAD_MIN_FREE": "0"})
    for seed, name in enumerate(NAMES):
        write_cache(tiers.shared, name, COMMIT, {"model.safetensors": large_shard(24 * MIB, seed)})
    running = [tiers.start("warm", name, "--max-rate", "8Mi") for name in NAMES]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in running]
    assert sorted(code for _, code in ended) == [0, 14], ended
    (said,) = (text for text, code in ended if code)
    for part in ("no room for 25,165", "local_max_bytes is 41,943,040", "are missing"):
        assert part in said, said


@pytest.mark.parametrize("transfer", ["ranged", "hub"])
def test_a_second_run_asks_and_writes_nothing(tmp_path: Path, transfer: str) -> None:
    with HubServer({"org/a": Repo({"model.safetensors": large_shard(5 * MIB, 0), "config.json": b"{}"})}) as hub:
        tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")})
        pinned = f"org/a@{hub.repos['org/a'].commit}"
        tiers.warm(pinned, "--transfer", transfer)
        asked, before = len(hub.requests), tree(tiers.folder)
        tiers.warm(pinned, "--transfer", transfer)
        assert (len(hub.requests), tree(tiers.folder)) == (asked, before)
