"""How the benchmarks measure, as far as they are asked in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload.ops.bench.turns import Habits

if TYPE_CHECKING:
    import argparse


def make_habits(asked: argparse.Namespace) -> Habits:
    """What ``--rounds``, ``--discard``, ``--seed`` and ``--patience`` ask for, by whoever may drop all caches."""
    return Habits(
        rounds=asked.rounds,
        discarded=asked.discard,
        seed=asked.seed,
        patience_s=asked.patience,
        may_drop_all=True,
    )
