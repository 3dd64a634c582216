"""How long the largest headers take, valid or not: a table, and exit code 1 where one is beyond the bound.

    python benchmarks/header_time.py                         # 100 MB, the cap: at most 10 s each
    python benchmarks/header_time.py --bytes 8000000 --bound 1

CPU time of the parsing alone, in one process. 100 MB of JSON take up to 1.7 GB to be parsed, and
several to be made.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from fastload._format.header import MAX_HEADER_BYTES, parse_header
from fastload.errors import FormatError

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "format"))

from large import LARGE, Large


def measure(large: Large) -> tuple[float, str]:
    """Seconds, and what came of it."""
    started = time.process_time()
    try:
        parse_header(large.raw, path="x", file_bytes=8 + len(large.raw) + large.data_bytes)
    except FormatError as error:
        return time.process_time() - started, error.found[:60]
    return time.process_time() - started, "valid"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=MAX_HEADER_BYTES, help="size of each header")
    parser.add_argument("--bound", type=float, default=10, help="seconds that none may take")
    arguments = parser.parse_args()
    worst = 0.0
    print(f"{'header':42}{'bytes':>12}{'seconds':>9}  verdict")
    for name, build in LARGE.items():
        large = build(arguments.bytes)
        seconds, verdict = measure(large)
        worst = max(worst, seconds)
        print(f"{name:42}{len(large.raw):12,}{seconds:9.2f}  {verdict}", flush=True)
    print(f"slowest {worst:.2f} s, bound {arguments.bound:g} s")
    return int(worst > arguments.bound)


if __name__ == "__main__":
    sys.exit(main())
