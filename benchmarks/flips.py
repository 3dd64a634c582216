"""Flips single bits in stored models and loads them: a table, and exit code 1 if one got through or a load cried wolf.

    python benchmarks/flips.py                    # 1,000 flips, 1,000 clean loads, half a minute
    python benchmarks/flips.py --flips 20000 --seed 1

By every kind of evidence and every reader, in the files that a load reads: shards and their index. A flip keeps the
file's size and mtime. After each one the bit is put back, and the model is loaded once more. The same seed makes the
same flips.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch

sys.path.extend(str(Path(__file__).parent.parent / "tests" / part) for part in (".", "load"))

import fastload
from fastload import IntegrityError, Options
from fastload.ops.bench.tables import format_rows
from proven_models import PLACES, READERS, Model, flip
from signing import bundle_of, key_of, pem_of, resource, statement_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGNED = "signature"
_KINDS = [*PLACES, _SIGNED]
_HEAD_BYTES = 512
"""Of a shard that is mostly weights a random byte is never the header's, so every fourth flip is made there."""


@dataclass(slots=True)
class Count:
    """What became of the flips and of the clean loads by one kind of evidence."""

    flips: Counter[str] = field(default_factory=Counter)
    """By the file they were made in."""
    clean_loads: int = 0
    wrong: list[str] = field(default_factory=list)
    """What got through, and false alarms."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of one file, and who reads it."""

    path: Path
    at: int
    reader: str

    def __str__(self) -> str:
        return f"{self.path.name}, byte {self.at:,}, reader {self.reader}"


def choose_flip(folder: Path, chance: Random) -> Flip:
    """A random bit of a random file of the model in ``folder``."""
    path = chance.choice(sorted(folder.glob("*.safetensors*")))
    size = path.stat().st_size
    at = chance.randrange(size if chance.randrange(4) else min(size, _HEAD_BYTES))
    return Flip(path, at, chance.choice(READERS))


@dataclass(frozen=True, slots=True)
class Stored:
    """A model, where it is, and how it is loaded from there."""

    model: Model
    folder: Path
    options: Options


def try_flip(stored: Stored, made: Flip) -> str:
    """Load with the flip; empty if it was found, else what happened instead."""
    flip(made.path, made.at)
    try:
        fastload.load(stored.folder, reader=made.reader, options=stored.options)
    except IntegrityError as exc:
        return "" if exc.path == str(made.path) else f"{made}: found in {exc.path}"
    except Exception as exc:  # noqa: BLE001 - whatever else it is, it is counted
        return f"{made}: {exc!r}"
    finally:
        flip(made.path, made.at)
    return f"{made}: not found"


def try_clean(stored: Stored, evidence: str, reader: str) -> str:
    """Load what is right; empty if that is what came, proven, else what happened instead."""
    try:
        weights = fastload.load(stored.folder, reader=reader, options=stored.options)
    except Exception as exc:  # noqa: BLE001 - as above
        return f"false alarm, reader {reader}: {exc!r}"
    report = weights.report
    same = all(torch.equal(weights[name], tensor) for name, tensor in stored.model.tensors.items())
    if (same, report.evidence, report.blocks_reread) != (True, evidence, 0) or not report.blocks_verified:
        return f"clean load, reader {reader}: {report}"
    return ""


def run(flips: int, chance: Random) -> dict[str, Count]:
    """The kinds of evidence take turns."""
    counts = {kind: Count() for kind in _KINDS}
    with tempfile.TemporaryDirectory(prefix="fastload-flips-") as temporary:
        stored = {kind: _store(kind, Path(temporary, kind)) for kind in _KINDS}
        for number in range(flips):
            kind = _KINDS[number % len(_KINDS)]
            count = counts[kind]
            made = choose_flip(stored[kind].folder, chance)
            complaints = (try_flip(stored[kind], made), try_clean(stored[kind], kind, chance.choice(READERS)))
            count.flips[made.path.name] += 1
            count.clean_loads += 1
            count.wrong += filter(None, complaints)
    return counts


def _store(kind: str, folder: Path) -> Stored:
    folder.mkdir()
    model = Model(folder)
    if kind != _SIGNED:
        return Stored(model, PLACES[kind](model), Options())
    entries = [resource(name, digest=sha256(model.files[name]).hexdigest()) for name in sorted(model.files)]
    key = folder / "key.pem"
    key.write_bytes(pem_of(key_of()))
    model.files["model.sig"] = bundle_of(statement_of(entries))
    return Stored(model, model.cached(), Options(signature_key=str(key)))


def render(counts: dict[str, Count]) -> str:
    """One line per kind of evidence."""
    rows: list[tuple[str, ...]] = [("evidence", "flips", "of them in the index", "clean loads", "wrong")]
    for kind, count in counts.items():
        in_index = sum(flips for name, flips in count.flips.items() if name.endswith(".json"))
        facts: Sequence[int] = (count.flips.total(), in_index, count.clean_loads, len(count.wrong))
        rows.append((kind, *(f"{fact:,}" for fact in facts)))
    return format_rows(rows)


def main() -> int:
    """Flip, load, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000, help="and as many clean loads")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begin_s = time.monotonic()
    counts = run(asked.flips, Random(asked.seed))  # noqa: S311 - the same flips every time
    wrong = [f"{kind}: {complaint}" for kind, count in counts.items() for complaint in count.wrong]
    print("\n".join([render(counts), *wrong]))
    total = sum(count.flips.total() for count in counts.values())
    print(f"\nseed {asked.seed}, {total:,} flips and as many clean loads in {time.monotonic() - begin_s:.0f} s")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
