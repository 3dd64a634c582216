"""Commands under a limit of time. What one has started ends with it: nobody measures beside what is left of a step."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LAST_WORDS_S = 2
"""For what is still in the pipes of a command that was ended; whoever left its group keeps them open."""


class LimitError(Exception):
    """A command took too long, and was ended; ``output`` is what it had said."""

    def __init__(self, limit_s: float, output: str) -> None:
        super().__init__(f"took more than {limit_s:.0f} s")
        self.output = output


def call(
    command: Sequence[str], limit_s: float, *, variables: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder``, and end it, with all that it has started, after ``limit_s``.

    Raises:
        LimitError: that was necessary.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=dict(variables), cwd=folder, start_new_session=True
    ) as child:
        try:
            said, complained = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            _end_group(child)
            raise LimitError(limit_s, _hear_last(child)) from None
        finally:
            _end_group(child)
    return subprocess.CompletedProcess(child.args, child.returncode, said, complained)


def check(run: subprocess.CompletedProcess[str]) -> None:
    """Raise ``RuntimeError``, with the last line that it complained by, where ``run`` failed."""
    if run.returncode:
        raise RuntimeError((run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1])


def _end_group(child: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _hear_last(child: subprocess.Popen[str]) -> str:
    try:
        return "".join(child.communicate(timeout=_LAST_WORDS_S))
    except subprocess.TimeoutExpired as exc:
        return b"".join(filter(None, (exc.stdout, exc.stderr))).decode(errors="replace")
