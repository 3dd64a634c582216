"""Steps under limits of time: each leaves its outcome in a file, whatever comes of the next."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class SkipError(Exception):
    """A step cannot be taken; says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something to measure."""

    name: str
    limit_s: float
    """It is ended after that."""
    least_s: float
    """It is not begun with less."""
    run: Callable[[float], dict[str, Any]]
    """Is given its limit."""
    needs_gpu: bool
    needs: tuple[str, ...] = ()
    """Packages."""


@dataclass(slots=True)
class Record:
    """All that was found so far, in a file."""

    path: Path
    machine: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, outcome: dict[str, Any]) -> None:
        """Keep the outcome of a step, whatever comes next."""
        self.steps[name] = outcome
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps({"schema": 1, "machine": self.machine, "steps": self.steps}, indent=1))
        beside.replace(self.path)


class Budget:
    """The seconds of the whole run."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """What is left of them."""
        return self._end_s - time.monotonic()


class Run:
    """One run of steps within a budget."""

    def __init__(self, path: Path, budget_s: float) -> None:
        self.record = Record(path)
        self._budget = Budget(budget_s)

    def take(self, step: Step) -> None:
        """Take ``step``, or skip it by name; never fail."""
        begin_s = time.monotonic()
        outcome: dict[str, Any] = {"status": "ok"}
        try:
            self._check(step)
            outcome |= step.run(min(step.limit_s, self._budget.left_s))
        except SkipError as exc:
            outcome = {"status": "skipped", "why": str(exc)}
        except Exception as exc:  # noqa: BLE001 - one failure costs one row
            outcome = {"status": "failed", "why": f"{type(exc).__name__}: {exc}"}
        outcome["wall_s"] = round(time.monotonic() - begin_s, 2)
        self.record.add(step.name, outcome)
        print(
            f"{self._budget.left_s:4.0f} s left  {step.name}: {outcome['status']} {outcome.get('why', '')}", flush=True
        )

    def _check(self, step: Step) -> None:
        """Raise ``SkipError`` where ``step`` cannot be taken."""
        missing = [package for package in step.needs if find_spec(package) is None]
        if missing:
            raise SkipError(f"{', '.join(missing)} is not installed")
        if step.needs_gpu and not self.record.machine.get("has_gpu"):
            raise SkipError("no GPU")
        if self._budget.left_s < step.least_s:
            raise SkipError(f"{self._budget.left_s:.0f} s are left, it wants {step.least_s:.0f}")
