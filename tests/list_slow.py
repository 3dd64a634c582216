"""Writes what `make quick` leaves out: test functions of which one case took 1.3 s, by pytest's own account.

PYTEST_ADDOPTS=--durations=0 make test > log; python tests/list_slow.py log > tests/slow.txt
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

_SLOW_S = 1.3
_PHASE = re.compile(r"([0-9.]+)s (?:call|setup|teardown) +(\S+::.*)")


def find_slow(log: str) -> list[str]:
    """The functions in the order of their names."""
    seconds: dict[str, float] = defaultdict(float)
    for phase in _PHASE.finditer(log):
        seconds[phase[2]] += float(phase[1])
    return sorted({case.partition("[")[0] for case, took_s in seconds.items() if took_s >= _SLOW_S})


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}\n" for name in find_slow(Path(sys.argv[1]).read_text(encoding="utf-8")))
