"""Loads a checkpoint into host memory with fastload and its peers, in turns, and says who was faster.

python benchmarks/side_by_side.py FOLDER                  # cold, cached and 8,000 tiny tensors
python benchmarks/side_by_side.py FOLDER --growth         # 1, 2, 4, 8 GiB made beside FOLDER
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from statistics import mean
from typing import TYPE_CHECKING

from fastload.ops.bench.checkpoint import GIB, list_llama, list_tiny, write_checkpoint
from fastload.ops.bench.contestants import CEILING, FASTLOAD, PEERS, find_obstacle
from fastload.ops.bench.files import Trial, list_files
from fastload.ops.bench.machine import describe_machine
from fastload.ops.bench.page_cache import PageCacheError
from fastload.ops.bench.tables import Table, format_rows
from fastload.ops.bench.turns import Runner
from habits import make_habits
from targets import judge, judge_growth, write_record

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTESTANTS = (*PEERS, *FASTLOAD, CEILING)
_PARTS = ("cold", "cached", "tiny", "many", "growth")
_GROWTH_GIB = (1, 2, 4, 8)
_COUNTS = {"tiny": 8000, "many": 90_000}


def run_table(runner: Runner, title: str, folder: str, state: str, contestants: Sequence[str]) -> Table:
    """All contestants with the same folder."""
    return runner.fill_table(Table(title, state), dict.fromkeys(contestants, Trial(list_files(folder))))


def run_tiny(runner: Runner, count: int, contestants: Sequence[str]) -> Table:
    """Thousands of small tensors: what a tensor costs, not a byte."""
    folder = os.path.join(runner.temporary, f"tiny-{count}")
    write_checkpoint(folder, list_tiny(count), shards=1)
    return run_table(runner, f"{count:,} tiny tensors", folder, "cached", contestants)


def run_growth(runner: Runner, contestants: Sequence[str]) -> list[Table]:
    """Checkpoints of growing size, one at a time on the disk."""
    tables: list[Table] = []
    for gib in _GROWTH_GIB:
        with tempfile.TemporaryDirectory(dir=runner.temporary) as folder:
            write_checkpoint(folder, list_llama(gib * GIB), shards=gib)
            tables += [run_table(runner, f"{gib} GiB, {s}", folder, s, contestants) for s in ("cold", "cached")]
    return tables


def render_growth(tables: Sequence[Table]) -> str:
    """One line per loader and size: seconds and GB/s."""
    rows: list[tuple[str, ...]] = [("table", "loader", "median s", "min-max s", "GB/s", "s per GB", "others")]
    for table in tables:
        for contestant, samples in table.samples.items():
            seconds, nbytes = table.get(contestant) or 0.0, samples[0].nbytes / 1e9
            spread = f"{min(s.seconds for s in samples):.3f}-{max(s.seconds for s in samples):.3f}"
            speed = (f"{seconds:.3f}", spread, f"{nbytes / seconds:.2f}", f"{seconds / nbytes:.3f}")
            rows.append((table.title, contestant, *speed, f"{mean(table.others_cpus):.2f} CPUs"))
        rows += [(table.title, contestant, *[""] * 4, error) for contestant, error in table.errors.items()]
    return f"### Growth\n\n{format_rows(rows)}"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    # Absolute, since a loader may take a bare word for a model's name.
    parser.add_argument(
        "folder", type=os.path.abspath, help="a checkpoint on the storage to be measured; see make_checkpoint.py"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measurements per loader")
    parser.add_argument("--discard", type=int, default=1, metavar="N", help="rounds before those, thrown away")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, metavar="LOADER", help=f"of {', '.join(CONTESTANTS)}")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=["cold", "cached", "tiny"])
    parser.add_argument(
        "--growth", dest="parts", action="store_const", const=["growth"], help="short for --parts growth"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order within the rounds")
    parser.add_argument(
        "--patience", type=float, default=0, metavar="S", help="wait so long at most for others to be idle"
    )
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="exit 1 if a promise is not kept or a loader failed")
    return parser.parse_args()


def main() -> int:
    """Measure what the command line asks for."""
    asked = _parse_arguments()
    if asked.parts != ["growth"] and not list_files(asked.folder).paths:
        print(f"no *.safetensors in {asked.folder!r}: make_checkpoint.py makes some", file=sys.stderr)
        return 2
    logging.basicConfig(format="%(message)s", level=logging.INFO)  # each measurement, on stderr
    try:
        return run(asked)
    except PageCacheError as exc:
        print(exc, file=sys.stderr)
        return 2


def run(asked: argparse.Namespace) -> int:
    """Measure, print the tables and the verdicts."""
    facts = describe_machine(asked.folder)
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), end="\n\n")
    contestants = asked.only or [name for name in CONTESTANTS if find_obstacle(name, "cpu") is None]
    tables: dict[str, Table] = {}
    growth: list[Table] = []
    beside = os.path.dirname(asked.folder)
    with tempfile.TemporaryDirectory(dir=beside, prefix="side-by-side-") as temporary:
        runner = Runner(temporary, make_habits(asked))
        for part in asked.parts:
            if part == "growth":
                growth = run_growth(runner, asked.only or ["fastload-auto"])
                print(render_growth(growth), end="\n\n")
                continue
            if part in _COUNTS:
                tables[part] = run_tiny(runner, _COUNTS[part], [name for name in contestants if name != CEILING])
            else:
                tables[part] = run_table(runner, part, asked.folder, part, contestants)
            print(tables[part].render(), end="\n\n", flush=True)
    verdicts = [*judge(tables), *judge_growth(growth)]
    measured = [*tables.values(), *growth]
    wrong = [f"{table.title}: {name}" for table in measured for name in table.find_differences()]
    print("\n".join([*map(str, verdicts), *(f"OTHER BYTES in {name}" for name in wrong)]))
    if asked.json:
        write_record(asked.json, facts, verdicts, measured)
    failed = wrong or any(table.errors for table in measured) or not all(verdict.met for verdict in verdicts)
    return 1 if asked.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
