"""What the doctor has to say of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastload.errors import FastloadError

FATAL, WARNING, NOTE = "fatal", "warning", "note"
SEVERITIES = (FATAL, WARNING, NOTE)
"""Worst first: loads fail; they are slow, or fail under load; something could be better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or could be better."""

    severity: str
    what: str
    why: str
    cure: str
    """The command to run, or the YAML to write."""


@dataclass(eq=False)
class UnfitError(FastloadError):
    """The doctor found something fatal: no error of a load, but what one would run into."""

    exit_code: ClassVar[int] = 22
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        found = "; ".join(finding.what for finding in self.findings)
        return f"{found}. {self.hint}" if self.hint else found
