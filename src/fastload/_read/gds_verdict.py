"""Does GPUDirect Storage pay here? Asked once per boot, mount and device, by a process of its own.

Of its own, because cuFile may hang, crash, or close descriptors that are not its; what happens to that process happens
to nobody else. Its limit is kept twice: by whoever waits for it, and by an alarm of its own, should nobody.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fastload._settings.environment import child_environment
from fastload._system_file import read_boot_id

if TYPE_CHECKING:
    from fastload._read.measured import Measured
    from fastload._read.reader import File

LIMIT_S = 10
_KIND = "gds"
_CHILD = "from fastload._read.gds_probe import main; main()"
_SAID_BYTES = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether what remains of a load should go past the host, and why."""

    is_on: bool
    reason: str
    lasts: bool = True
    """False for a reason of the moment, or of one file: the next load asks again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the probe is asked."""

    path: str
    """A file that is to be read: the probe reads a part of it, and not through the page cache."""
    ordinal: int
    """The device, as CUDA numbers it for this process and its children."""
    limit_s: int = LIMIT_S
    compat_mode: str = "OFF"
    """See :class:`fastload._read.gds.CuFiles`."""


def verdict_key(file: File, device: str) -> str:
    """Boot, mount and device: what a verdict holds for."""
    number = f"{os.major(file.identity.dev)}:{os.minor(file.identity.dev)}"
    return f"{read_boot_id()} {number} {device}"


def find_verdict(measured: Measured, key: str) -> Verdict | None:
    """One that was kept."""
    facts = measured.find(_KIND, key) or {}
    is_on, reason = facts.get("is_on"), facts.get("reason")
    return Verdict(is_on, reason) if isinstance(is_on, bool) and isinstance(reason, str) else None


def keep_verdict(measured: Measured, key: str, verdict: Verdict) -> bool:
    """For the next process of this boot; False where it does not last, or cannot be written."""
    return verdict.lasts and measured.keep(_KIND, key, asdict(verdict))


def ask_probe(question: Question) -> Verdict:
    """Run the probe and wait for it, for ``question.limit_s`` at most."""
    if not sys.executable:
        reason = "the probe needs a Python to run in, and sys.executable is empty"
        return Verdict(is_on=False, reason=reason, lasts=False)
    command = [sys.executable, "-c", _CHILD, json.dumps(asdict(question))]
    # cuFile writes cufile.log where it runs, and may do so still when the folder goes.
    try:
        with tempfile.TemporaryDirectory(prefix="fastload-gds-", ignore_cleanup_errors=True) as folder:
            done = subprocess.run(  # noqa: S603 - this Python, and a path that it was given
                command,
                cwd=folder,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=question.limit_s,
                check=False,
            )
    except subprocess.TimeoutExpired as exc:
        late = Verdict(is_on=False, reason=f"the probe did not end within {question.limit_s} s")
        return _parse_answer(exc.stdout) or late
    except OSError as exc:
        return Verdict(is_on=False, reason=f"the probe could not be started: {exc}", lasts=False)
    return _parse_answer(done.stdout) or _explain_silence(done)


def _parse_answer(printed: bytes | None) -> Verdict | None:
    """The last line that was printed: libraries may have printed before."""
    try:
        answer: Any = json.loads((printed or b"").strip().splitlines()[-1])
        return Verdict(bool(answer["is_on"]), str(answer["reason"]), bool(answer.get("lasts", True)))
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def _explain_silence(done: subprocess.CompletedProcess[bytes]) -> Verdict:
    said = done.stderr.strip().splitlines()[-1:] or [b"nothing"]
    what = said[0][:_SAID_BYTES].decode(errors="replace")
    reason = f"the probe ended with status {done.returncode} and said: {what}"
    is_ended = done.returncode == -signal.SIGKILL  # by somebody else: the kernel, where memory is short
    return Verdict(is_on=False, reason=reason, lasts=not is_ended)
