"""How a command can end, other than well, and the exit code of each."""

from __future__ import annotations

from fastload.cli.bug import BUG
from fastload.errors import FastloadError

INTERRUPTED = 130
TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM, or SIGHUP: unwinds as Ctrl-C does, so that nothing is left behind."""


def exit_code_of(error: BaseException) -> int:
    """What the command ends with, if nothing else comes between."""
    if isinstance(error, FastloadError):
        return error.exit_code
    if isinstance(error, Terminated):
        return TERMINATED
    return BUG if isinstance(error, Exception) else INTERRUPTED
