"""Is GPUDirect Storage on for what remains of a load? Off until that is known; nobody waits for the answer.

What takes time - importing kvikio, opening cuFile's driver, the probe - happens on a thread beside the load, which
begins through pinned host memory and changes over in its midst.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._read.cuda_driver import load_driver
from fastload._read.gds import CuFiles, import_kvikio
from fastload._read.gds_statistics import load_statistics
from fastload._read.gds_verdict import Question, Verdict, ask_probe, find_verdict, keep_verdict, verdict_key
from fastload._thread import start_thread
from fastload.errors import FastloadError, UnsupportedError, escaped

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._read.gds_health import GdsHealth
    from fastload._read.gds_statistics import ReadCounts, Statistics
    from fastload._read.measured import Measured
    from fastload._read.reader import File

_log = logging.getLogger("fastload")
_WORTH_BYTES = 16 << 30  # 16 GiB: a smaller load is over before the probe has paid for itself


@dataclass(frozen=True, slots=True)
class Opened:
    """What reads, and its statistics from there on."""

    files: CuFiles
    statistics: Statistics | None
    before: ReadCounts | None


class GdsSwitch:
    """Off, until :meth:`turn_on` or :meth:`decide` has found otherwise; off again where cuFile keeps failing."""

    def __init__(self, health: GdsHealth, ordinal: int, why_off: str) -> None:
        """``ordinal``: the device, as CUDA numbers it for this process."""
        self._health = health
        self._ordinal = ordinal
        self._opened: Opened | None = None
        self._why_off = why_off

    @property
    def files(self) -> CuFiles | None:
        """What reads while it is on."""
        return self._opened.files if self._opened is not None and not self._health.verdict else None

    @property
    def reason(self) -> str:
        """Why it is off, where it is."""
        return self._health.verdict or self._why_off

    def read_counts(self) -> ReadCounts | None:
        """Reads since it was turned on; None where cuFile does not tell."""
        opened = self._opened
        if opened is None or opened.statistics is None or opened.before is None:
            return None
        try:
            return opened.statistics.read().since(opened.before)
        except UnsupportedError:
            return None

    def turn_on(self, file: File) -> None:
        """Open cuFile's driver by opening ``file`` with it, of which nothing is read.

        Raises:
            UnsupportedError: it cannot be opened; the switch stays off.
        """
        try:
            self._opened = _open(file, self._ordinal, self._health)
        except UnsupportedError as exc:
            self._why_off = str(exc)
            raise

    def decide(self, file: File, device: Device, measured: Measured) -> None:
        """On or off by the verdict that is kept for this boot, or by a probe; on a thread of its own."""
        self._why_off = "the probe was still running"
        _begin(lambda: self._decide(file, device, measured))

    def turn_on_beside(self, file: File) -> None:
        """As :meth:`turn_on`, but on a thread of its own; an error is a reason to stay off."""
        self._why_off = "cuFile was still being opened"
        _begin(lambda: self._try_to_turn_on(file))

    def _decide(self, file: File, device: Device, measured: Measured) -> None:
        key = verdict_key(file, device.name)
        verdict = find_verdict(measured, key)
        if verdict is None:
            if device.planned_bytes < _WORTH_BYTES:
                self._why_off = f"nobody has probed it, and {device.planned_bytes:,} bytes are too few to begin now"
                return
            verdict = ask_probe(Question(path=file.path, ordinal=self._ordinal))
            _tell(verdict, is_kept=keep_verdict(measured, key, verdict))
        self._why_off = verdict.reason
        if verdict.is_on:
            self._try_to_turn_on(file)

    def _try_to_turn_on(self, file: File) -> None:
        try:
            self.turn_on(file)
        except FastloadError as exc:
            self._why_off = str(exc)


@dataclass(frozen=True, slots=True)
class Device:
    """The device of a load, and how much it is to get."""

    name: str
    """Which it is, on this machine: its UUID."""
    planned_bytes: int


def _begin(work: Callable[[], None]) -> None:
    # A daemon: the interpreter's end must not wait for a probe.
    start_thread(threading.Thread(target=work, name="fastload-gds", daemon=True))


def _open(file: File, ordinal: int, health: GdsHealth) -> Opened:
    with load_driver().within(ordinal):  # without a context on this thread cuFile's driver does not open
        files = CuFiles(import_kvikio(), health=health)
        files.open(file).close()
        try:
            statistics = load_statistics()
            statistics.start()
            return Opened(files, statistics, statistics.read())
        except UnsupportedError:
            return Opened(files, None, None)  # it reads; only what it does with it cannot be shown


def _tell(verdict: Verdict, *, is_kept: bool) -> None:
    word = "on" if verdict.is_on else "off"
    kept = "" if is_kept else ", which could not be kept" if verdict.lasts else "; else the next load asks again"
    said = "GPUDirect Storage is %s here: %s. FASTLOAD_GDS=%s saves the probe%s"
    _log.info(said, word, escaped(verdict.reason), word, kept)
