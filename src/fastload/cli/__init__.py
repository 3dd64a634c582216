"""The command line: one file per verb, and the only place that prints or exits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fastload.cli.signals import let_signals_kill, signals_held

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["command", "main"]


def command() -> NoReturn:
    """``fastload`` and ``python -m fastload``: a process that does nothing else."""
    with signals_held():
        exit_code = main()
        let_signals_kill()
    sys.exit(exit_code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code says how it went (see ``fastload --help``)."""
    words = sys.argv[1:] if arguments is None else arguments
    with signals_held():
        try:  # takes a moment, in which signals must be held already
            from fastload.cli.entry import import_verbs, run  # noqa: PLC0415

            verbs = import_verbs(words)
        except ImportError as error:
            _leave_reason(error)
            raise  # Python says the rest, and ends with 1
        return run(words, verbs)


def _leave_reason(error: ImportError) -> None:
    from fastload.cli.bug import BUG, explain_bug  # noqa: PLC0415 - seldom needed
    from fastload.cli.termination import TERMINATION_LOG, leave_termination_message  # noqa: PLC0415 - seldom needed

    leave_termination_message({"error": explain_bug(error), "exit_code": BUG}, TERMINATION_LOG)
