"""What proving costs: loads by each kind of evidence beside loads that look at nothing, and a bare digesting loop.

python benchmarks/verify_cost.py FOLDER                   # a checkpoint by make_checkpoint.py; twice its room on disk
python benchmarks/verify_cost.py FOLDER --parts cached --rounds 5
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fastload.ops.bench.contestants import LOOP
from fastload.ops.bench.files import list_files
from fastload.ops.bench.machine import describe_machine
from fastload.ops.bench.page_cache import PageCacheError
from fastload.ops.bench.tables import Table
from fastload.ops.bench.turns import Runner
from habits import make_habits
from hub_process import serving
from proven_stores import make_stores
from targets import judge_proof, write_record

if TYPE_CHECKING:
    from fastload.ops.bench.files import Trial
    from proven_stores import Stores

OFF = {"off": "fastload-auto-off", "off-mmap": "fastload-mmap-off", "off-hub": "fastload-auto-off"}
PROVEN = {
    "manifest": "manifest",
    "manifest-mmap": "manifest",
    "recorded": "manifest (recorded)",
    "signature": "signature",
    "signature-kept": "signature",
    "sha256": "sha256",
    "git-sha1": "git-sha1",
    "etag": "etag",
    "listing": "listing",
}
"""By which evidence each of them must have proven its bytes."""
_STORED = {"off-hub": "listing", "signature-kept": "signature, kept"}
"""Where a row finds its files, if not among what it is proven by."""
LOADERS = OFF | {row: "fastload-mmap" if row.endswith("-mmap") else "fastload-auto" for row in PROVEN}
_PARTS = ("cold", "cached")


def choose_trials(stores: Stores) -> dict[str, Trial]:
    """What each row loads; those are left out of which there is nothing here."""
    kinds = dict.fromkeys((*OFF, LOOP), "none") | PROVEN | _STORED
    return {row: stores.trials[kind] for row, kind in kinds.items() if kind not in stores.left_out}


def find_unproven(table: Table) -> list[str]:
    """Contestants that did not prove what they loaded by what they should have."""
    expected = dict.fromkeys(OFF, "none") | {LOOP: ""} | PROVEN
    return [
        f"{name}: evidence {sample.evidence!r}, not {expected[name]!r}"
        for name, samples in table.samples.items()
        for sample in samples
        if sample.evidence != expected[name]
    ]


def run(asked: argparse.Namespace) -> int:
    """Measure, print the tables and the verdicts."""
    facts = describe_machine(asked.folder)
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), end="\n\n")
    tables: dict[str, Table] = {}
    with tempfile.TemporaryDirectory(dir=os.path.dirname(asked.folder), prefix="verify-cost-") as temporary:
        runner = Runner(temporary, make_habits(asked))
        stores = make_stores(Path(asked.folder), Path(temporary), Path(temporary) / "warm-up")
        for kind, why in stores.left_out.items():
            print(f"no row {kind}: {why}", flush=True)
        with serving({path.name: path for path in Path(stores.trials["none"].files.folder).iterdir()}) as url:
            os.environ["HF_ENDPOINT"] = url  # for those that load from it, each in a process of its own
            for part in asked.parts:
                table = Table(part, part, beside=("off",), beside_name="off")
                tables[part] = runner.fill_table(table, choose_trials(stores), LOADERS)
                print(table.render(), end="\n\n", flush=True)
    verdicts = judge_proof(tables)
    wrong = [line for table in tables.values() for line in (*find_unproven(table), *table.find_differences())]
    print("\n".join([*map(str, verdicts), *(f"WRONG {line}" for line in wrong)]))
    if asked.json:
        write_record(asked.json, facts, verdicts, list(tables.values()))
    failed = wrong or any(table.errors for table in tables.values()) or not all(verdict.met for verdict in verdicts)
    return 1 if asked.check and failed else 0


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=os.path.abspath, help="a checkpoint on the storage to be measured")
    parser.add_argument("--rounds", type=int, default=9, help="measurements per row")
    parser.add_argument("--discard", type=int, default=1, metavar="N", help="rounds before those, thrown away")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--seed", type=int, default=0, help="of the order within the rounds")
    parser.add_argument(
        "--patience", type=float, default=0, metavar="S", help="wait so long at most for others to be idle"
    )
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="exit 1 if a promise is not kept or a load failed")
    asked = parser.parse_args()
    if not list_files(asked.folder).paths:
        print(f"no *.safetensors in {asked.folder!r}: make_checkpoint.py makes some", file=sys.stderr)
        return 2
    logging.basicConfig(format="%(message)s", level=logging.INFO)  # each measurement, on stderr
    try:
        return run(asked)
    except PageCacheError as exc:
        print(exc, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
