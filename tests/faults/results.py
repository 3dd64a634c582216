"""What a sweep found: rows for a person and for a program."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Row:
    """One kind of fault, and how every case of it ended."""

    what: str
    cases: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What must not be, each with the case that shows it."""

    def add(self, case: str, end: str, wrong: str | None = None) -> None:
        """Count one case."""
        self.cases += 1
        self.ends[end] += 1
        if wrong is not None:
            self.wrong.append(f"{case}: {wrong}")

    def check(self) -> None:
        """Nothing was wrong.

        Raises:
            AssertionError: something was; names the first cases.
        """
        assert not self.wrong, f"{self.what}: {len(self.wrong)} of {self.cases}:\n" + "\n".join(self.wrong[:5])


def as_text(rows: Iterable[Row]) -> str:
    """A table in Markdown."""
    lines = ["| what | cases | how they ended | wrong |", "|---|--:|---|--:|"]
    for row in rows:
        ends = ", ".join(f"{end} {count}" for end, count in sorted(row.ends.items()))
        lines.append(f"| {row.what} | {row.cases:,} | {ends} | {len(row.wrong)} |")
    return "\n".join(lines)


def as_json(rows: Iterable[Row]) -> str:
    """One object."""
    found = [
        {"what": row.what, "cases": row.cases, "ends": dict(sorted(row.ends.items())), "wrong": row.wrong}
        for row in rows
    ]
    return json.dumps({"schema": 1, "rows": found}, indent=1)
