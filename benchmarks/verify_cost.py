"""What proving costs: loads by each kind of evidence beside loads that look at nothing, and a bare digesting loop.

python benchmarks/verify_cost.py FOLDER                   # a checkpoint by make_checkpoint.py; twice its room on disk
python benchmarks/verify_cost.py FOLDER --parts cached --rounds 5
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import fastload
from fastload._verify.digest import BLOCK_BYTES, ContentHash
from fastload.ops.bench.contestants import LOOP
from fastload.ops.bench.files import Trial, list_files
from fastload.ops.bench.machine import describe_machine
from fastload.ops.bench.page_cache import PageCacheError
from fastload.ops.bench.tables import Table
from fastload.ops.bench.turns import Runner
from habits import make_habits
from targets import judge_proof, write_record

OFF = {"off": "fastload-auto-off", "off-mmap": "fastload-mmap-off"}
PROVEN = {
    "manifest": "manifest",
    "manifest-mmap": "manifest",
    "recorded": "manifest (recorded)",
    "sha256": "sha256",
    "etag": "etag",
}
"""By which evidence each of them must have proven its bytes."""
LOADERS = OFF | {row: "fastload-mmap" if row.endswith("-mmap") else "fastload-auto" for row in PROVEN}
_PARTS = ("cold", "cached")
_COMMIT = "c0ffee" * 6 + "abcd"


def make_stores(model: Path, temporary: Path) -> dict[str, str]:
    """The folder that each contestant loads: the same files, by hard links, among different evidence.

    One copy is made, because links to the model's own files would change their ctime under whoever loads them.
    """
    plain = temporary / "plain"
    plain.mkdir()
    names = {}
    for path in sorted(model.glob("*.safetensors*")):
        shutil.copyfile(path, plain / path.name)
        names[path.name] = _name_blob(plain / path.name)
    cached, recorded = (_write_cache(plain, temporary / kind, names) for kind in ("sha256", "manifest"))
    downloaded, listed = (_link_folder(plain, temporary / kind) for kind in ("etag", "recorded"))
    for name, etag in names.items():
        notes = downloaded / ".cache/huggingface/download" / f"{name}.metadata"
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text(f"{_COMMIT}\n{etag}\n1.0\n")
    for folder in (recorded, listed):
        fastload.verify(folder, record=True)
    by_evidence = {"manifest": recorded, "manifest (recorded)": listed, "sha256": cached, "etag": downloaded}
    proven = {name: str(by_evidence[evidence]) for name, evidence in PROVEN.items()}
    return dict.fromkeys((*OFF, LOOP), str(plain)) | proven


def _name_blob(path: Path) -> str:
    """The digest by which the hub knows the file."""
    content = ContentHash(path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(BLOCK_BYTES):
            content.update(piece)
    sha1 = content.git_sha1
    return content.sha256 if path.suffix == ".safetensors" or sha1 is None else sha1


def _write_cache(plain: Path, root: Path, names: dict[str, str]) -> Path:
    """The hub's cache layout; the folder of its snapshot."""
    repo = root / "models--bench--model"
    snapshot = repo / "snapshots" / _COMMIT
    (repo / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, blob in names.items():
        os.link(plain / name, repo / "blobs" / blob)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return snapshot


def _link_folder(plain: Path, folder: Path) -> Path:
    shutil.copytree(plain, folder, copy_function=os.link)
    return folder


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
        stores = make_stores(Path(asked.folder), Path(temporary))
        trials = {row: Trial(list_files(folder)) for row, folder in stores.items()}
        for part in asked.parts:
            table = Table(part, part, beside=("off",), beside_name="off")
            tables[part] = runner.fill_table(table, trials, LOADERS)
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
