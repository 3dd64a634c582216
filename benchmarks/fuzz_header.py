"""fastload against the reference on as many mutants as one has time for: a table, and exit code 1 on a disagreement.

    python benchmarks/fuzz_header.py --mutants 1000000 --seed 0

The same seed makes the same mutants, whatever the number of processes. Each disagreement is printed with its mutant.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path.extend(str(Path(__file__).parent.parent / "tests" / part) for part in (".", "format"))

from judges import Verdict, compare
from mutants import mutate

_PER_TASK = 5_000


def judge(task: tuple[str, int]) -> tuple[Counter[Verdict], list[tuple[str, bytes]]]:
    """The verdicts on ``count`` mutants of ``seed``, and the disagreements in full."""
    seed, count = task
    chance = Random(seed)  # noqa: S311 - the same mutants every time
    verdicts: Counter[Verdict] = Counter()
    disagreements = []
    for _ in range(count):
        mutant = mutate(chance)
        verdict = compare(mutant)
        verdicts[verdict] += 1
        if verdict.kind == "DISAGREEMENT":
            disagreements.append((verdict.detail, mutant))
    return verdicts, disagreements


def main() -> int:
    """Judge all mutants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    tasks = [
        (f"{arguments.seed}/{begin}", min(_PER_TASK, arguments.mutants - begin))
        for begin in range(0, arguments.mutants, _PER_TASK)
    ]
    total: Counter[Verdict] = Counter()
    started = time.perf_counter()
    with multiprocessing.Pool(arguments.processes) as pool:
        for verdicts, disagreements in pool.imap(judge, tasks):
            total += verdicts
            for detail, mutant in disagreements:
                print(f"DISAGREEMENT: {detail}\n{mutant!r}\n", flush=True)
    print_table(total)
    print(f"\nseed {arguments.seed}, {time.perf_counter() - started:.0f} s, {arguments.processes} processes")
    return int(any(verdict.kind == "DISAGREEMENT" for verdict in total))


def print_table(verdicts: Counter[Verdict]) -> None:
    """The kinds of verdicts, and below each its details, the most frequent first."""
    kinds: Counter[str] = Counter()
    for verdict, count in verdicts.items():
        kinds[verdict.kind] += count
    for kind, of_kind in kinds.most_common():
        print(f"{of_kind:9,} {of_kind / verdicts.total():6.1%}  {kind}")
        for verdict, count in verdicts.most_common():
            if verdict.kind == kind and verdict.detail:
                print(f"{count:20,}  {verdict.detail[:90]}")
    print(f"{verdicts.total():9,} mutants")


if __name__ == "__main__":
    sys.exit(main())
