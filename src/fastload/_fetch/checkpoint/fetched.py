"""What is to be loaded, and the checkpoint that was found for it, with what the rooms above need to know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.evidence.evidence import NOTHING, Evidence
from fastload._fetch.mend.repair import Leaves
from fastload._read.counted import counted
from fastload._read.ledger import Purpose
from fastload._read.paced import paced

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._cpus import Cpus
    from fastload._fetch.checkpoint.home import Home
    from fastload._fetch.deadline import Deadline
    from fastload._fetch.find.model import Source
    from fastload._format.checkpoint import Checkpoint, Shard
    from fastload._read.choose import Choice
    from fastload._read.ledger import Ledger
    from fastload._read.tally import ProofTally
    from fastload._tier import Tier
    from fastload.options import Settings


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What :func:`fastload._fetch.checkpoint.fetch.fetch` was asked."""

    source: Source
    settings: Settings
    deadline: Deadline
    when_weighed: Callable[[Evidence], object]
    """Is told what proves the model, before its headers are read."""
    restores: bool
    """True if what the local tier has lost is brought back to it."""
    ledger: Ledger

    @property
    def leaves(self) -> Leaves:
        """What a load leaves of what it mends."""
        return Leaves.MENDED if self.restores else Leaves.NOTHING

    def check(self) -> None:
        """Raise ``DeadlineError`` when it is time to give up."""
        self.deadline.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A checkpoint whose headers were read and agreed, and where it was found."""

    checkpoint: Checkpoint
    name: str
    """As the caller called it: a path, or a name with its revision."""
    folder: str
    """Where it is; for what is on no mount, the name that the hub has for it."""
    root: str
    """The snapshot's folder, which a subfolder was taken of."""
    tier: Tier
    commit: str | None = None
    commit_learnt: str | None = None
    evidence: Evidence = NOTHING
    tally: ProofTally
    """What proving the headers did; the load goes on counting."""
    passed_over: str = ""
    """Which tiers before this one could not give it, and why; empty: there are none."""
    home: Home
    """Gives the bytes, and is told what becomes of them."""

    def choose(self, shard: Shard, wanted: str, cpus: Cpus | None = None) -> Choice:
        """The reader for one shard, held to the pace of where it is, and what it reads written down.

        ``cpus`` as for :func:`~fastload._read.choose.choose_reader`.

        Raises:
            UnsupportedError: one that was asked for by name, for bytes that no file system has.
        """
        choice = self.home.choose(shard, wanted, cpus, digests=self.evidence.has_blocks)
        if self.passed_over:
            choice = replace(choice, reason=f"{choice.reason}; {self.passed_over}")
        choice = counted(choice, partial(self.tally.note, Purpose.WEIGHTS))
        return choice if self.home.pace is None else paced(choice, self.home.pace.wait)

    def close(self) -> None:
        """Let go of what was opened to find it."""
        self.home.close()
