"""The probe: a process of its own whose end, whatever it is, is a verdict; and the verdicts that are kept."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fake_kvikio import FakeKvikio
from fastload._read import gds_probe, gds_switch, gds_verdict
from fastload._read.cuda_driver import CudaDriver
from fastload._read.file import identify
from fastload._read.gds_health import GdsHealth
from fastload._read.gds_probe import answer
from fastload._read.gds_statistics import ReadCounts
from fastload._read.gds_switch import Device, GdsSwitch
from fastload._read.gds_verdict import Question, Verdict, ask_probe, find_verdict, keep_verdict, verdict_key
from fastload._read.measured import Measured
from fastload._read.reader import PlainFile
from fastload._system_file import read_boot_id
from fastload.errors import UnsupportedError
from hand_clock import HandClock
from stopwatch import Stopwatch
from stub_device import compile_stub, load_stub, needs_kvikio, needs_stub

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
LARGE = 64 << 30


@pytest.fixture
def file(tmp_path: Path) -> PlainFile:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(MIB) * 48)
    return PlainFile(str(path), identify(path.stat()))


# What becomes of the process.


def ask(code: str, monkeypatch: pytest.MonkeyPatch, **knobs: Any) -> Verdict:
    monkeypatch.setattr(gds_verdict, "_CHILD", code)
    return ask_probe(Question(path="/m", ordinal=0, **knobs))


def test_without_a_folder_to_run_in_it_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose root is read-only and that has no /tmp."""
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    verdict = ask("print()", monkeypatch)
    assert not verdict.is_on
    assert verdict.reason.startswith("the probe could not be started: ")
    assert not verdict.lasts, "the next process may have one"


def test_its_last_line_is_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """print("noise"); print('{"is_on": true, "reason": "9 GB/s"}')"""
    assert ask(code, monkeypatch) == Verdict(is_on=True, reason="9 GB/s")


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stopwatch() as watch:
        verdict = ask("while True: pass", monkeypatch, limit_s=1)
    assert verdict == Verdict(is_on=False, reason="the probe did not end within 1 s")
    assert watch.seconds < 5


def test_one_that_hangs_after_its_verdict_has_given_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time runs from when it has, however long a machine that is busy takes to start it."""
    communicate = subprocess.Popen.communicate

    def wait_for_word(process: subprocess.Popen[bytes], *arguments: Any, **keywords: Any) -> Any:
        assert process.stdout is not None
        select.select([process.stdout], [], [], 60)
        return communicate(process, *arguments, **keywords)

    monkeypatch.setattr(subprocess.Popen, "communicate", wait_for_word)
    code = """print('{"is_on": true, "reason": "r"}', flush=True)\nwhile True: pass"""
    assert ask(code, monkeypatch, limit_s=1) == Verdict(is_on=True, reason="r")


def test_one_that_crashes_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = ask("import os, sys; print('oh', file=sys.stderr, flush=True); os.abort()", monkeypatch)
    assert verdict == Verdict(is_on=False, reason="the probe ended with status -6 and said: oh")
    assert not ask("print('[]')", monkeypatch).is_on


def test_one_that_the_kernel_ends_for_want_of_memory_says_nothing_of_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = ask("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", monkeypatch)
    assert verdict == Verdict(is_on=False, reason="the probe ended with status -9 and said: nothing", lasts=False)


def test_whether_it_lasts_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """print('{"is_on": false, "reason": "r", "lasts": false}')"""
    assert ask(code, monkeypatch) == Verdict(is_on=False, reason="r", lasts=False)


def test_it_writes_nothing_where_the_load_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That is what cuFile does, with its log."""
    monkeypatch.chdir(tmp_path)
    code = """open("cufile.log", "w"); import os; print('{"is_on": false, "reason": "%s"}' % os.getcwd())"""
    reason = ask(code, monkeypatch).reason
    assert reason != str(tmp_path)
    assert not os.listdir(tmp_path)
    assert not os.path.exists(reason)


def test_it_ends_itself_when_nobody_waits(file: PlainFile) -> None:
    """Its alarm is set before anything is touched that may hang."""
    source = Path(gds_probe.__file__).read_text()
    main = source[source.index("def main()") : source.index("def answer(")]
    assert main.index("signal.alarm(question.limit_s)") < main.index("answer(question)")


def test_a_machine_without_a_driver_is_a_no(file: PlainFile) -> None:
    """The real child, in earnest: it must at least find its own code."""
    reason = ask_probe(Question(path=file.path, ordinal=0)).reason
    assert "no CUDA driver here" in reason or "cannot" in reason or "GB/s" in reason


@needs_kvikio
def test_the_real_kvikio_without_a_gpu_is_a_no(
    file: PlainFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole child on the stub: it opens, and then cuFile has no statistics, since its driver is not open."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(compile_stub(tmp_path).parent))
    reason = ask_probe(Question(path=file.path, ordinal=0, compat_mode="ON")).reason
    assert "cuFileStatsStart with error 5001" in reason


# What it finds.


class Counting:
    """Statistics of a cuFile that reads past the host, or does not."""

    def __init__(self, kvikio: FakeKvikio, *, posix: bool = False) -> None:
        self._kvikio = kvikio
        self._posix = posix

    def start(self) -> None:
        """They are on."""

    def read(self) -> ReadCounts:
        count = len(self._kvikio.reads)
        return ReadCounts(0, count) if self._posix else ReadCounts(count, 0)


@pytest.fixture
def kvikio(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> FakeKvikio:
    load_stub(tmp_path_factory.getbasetemp())
    kvikio = FakeKvikio()
    for name in ("kvikio", "kvikio.defaults"):
        monkeypatch.setitem(sys.modules, name, kvikio)
    monkeypatch.setattr(gds_probe, "load_statistics", lambda: Counting(kvikio))
    monkeypatch.setattr(gds_probe, "_READ_BYTES", 2 * MIB)
    return kvikio


def slow_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    HandClock(monkeypatch).let_last(CudaDriver, "copy_to_device")


@needs_stub
def test_faster_past_the_host_is_a_yes(kvikio: FakeKvikio, file: PlainFile, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_copies(monkeypatch)
    verdict = answer(Question(path=file.path, ordinal=0))
    assert verdict.is_on
    assert "GB/s past the host" in verdict.reason
    assert not kvikio.registered.total()
    assert not kvikio.open_files


@needs_stub
def test_slower_past_the_host_is_a_no(kvikio: FakeKvikio, file: PlainFile, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock(monkeypatch)
    monkeypatch.setattr(FakeKvikio, "written", lambda *_: clock.pass_hour())
    verdict = answer(Question(path=file.path, ordinal=0))
    assert not verdict.is_on
    assert "GB/s past the host" in verdict.reason


@needs_stub
def test_reads_by_posix_are_a_no_however_fast(
    kvikio: FakeKvikio, file: PlainFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_copies(monkeypatch)
    monkeypatch.setattr(gds_probe, "load_statistics", lambda: Counting(kvikio, posix=True))
    verdict = answer(Question(path=file.path, ordinal=0))
    assert not verdict.is_on
    assert "36 reads by POSIX, 0 past the host" in verdict.reason


@needs_stub
def test_other_bytes_than_pread_are_a_no(kvikio: FakeKvikio, file: PlainFile, monkeypatch: pytest.MonkeyPatch) -> None:
    to_host = CudaDriver.copy_to_host

    def flipped(driver: CudaDriver, address: int, memory: Any, nbytes: int) -> None:
        to_host(driver, address, memory, nbytes)
        ctypes.c_ubyte.from_address(address).value ^= 1

    monkeypatch.setattr(CudaDriver, "copy_to_host", flipped)
    verdict = answer(Question(path=file.path, ordinal=0))
    assert verdict == Verdict(is_on=False, reason="cuFile brought other bytes than pread at 0")


@needs_stub
def test_a_descriptor_0_that_is_gone_is_a_no(
    kvikio: FakeKvikio, file: PlainFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_copies(monkeypatch)
    kept, kvikio_descriptor = os.dup(0), os.open(file.path, os.O_RDONLY)
    monkeypatch.setattr(FakeKvikio, "written", lambda *_: os.dup2(kvikio_descriptor, 0))
    try:
        verdict = answer(Question(path=file.path, ordinal=0))
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(kvikio_descriptor)
    assert verdict == Verdict(is_on=False, reason="cuFile closed descriptor 0, not its own")


@needs_stub
def test_an_error_on_the_way_leaves_nothing_registered(kvikio: FakeKvikio, file: PlainFile) -> None:
    kvikio.failures = {"read": deque([RuntimeError("broken")])}
    with pytest.raises(UnsupportedError, match="broken"):
        answer(Question(path=file.path, ordinal=0))
    assert not kvikio.registered.total()
    assert not kvikio.open_files


@needs_stub
def test_a_small_file_is_not_probed(kvikio: FakeKvikio, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * MIB)
    verdict = answer(Question(path=str(tmp_path / "small"), ordinal=0))
    assert verdict == Verdict(is_on=False, reason="the file is too small to be probed", lasts=False)


@pytest.mark.parametrize(("code", "lasts"), [(2, False), (100, True)])
def test_a_device_that_the_load_fills_says_nothing_of_storage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, code: int, lasts: bool
) -> None:
    """The probe needs a context and 128 MiB of the device beside the load that asks."""

    class Full(Answering):
        def cuDevicePrimaryCtxRetain(self, *_: Any) -> int:  # noqa: N802 - as CUDA calls it
            return code

    driver = CudaDriver(Full())
    monkeypatch.setattr(gds_probe, "load_driver", lambda: driver)
    monkeypatch.setattr(sys, "argv", ["-c", json.dumps({"path": "/m", "ordinal": 0})])
    gds_probe.main()
    signal.alarm(0)
    verdict = json.loads(capsys.readouterr().out)
    assert f"cuDevicePrimaryCtxRetain with error {code}" in verdict["reason"]
    assert (verdict["is_on"], verdict["lasts"]) == (False, lasts)


@needs_stub
@pytest.mark.parametrize("becomes", ["gone", "a folder"])
def test_a_file_that_is_no_more_says_nothing_of_storage(
    kvikio: FakeKvikio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    becomes: str,
) -> None:
    path = tmp_path / "model.safetensors"
    if becomes == "a folder":
        path.mkdir()
    monkeypatch.setattr(sys, "argv", ["-c", json.dumps({"path": str(path), "ordinal": 0})])
    gds_probe.main()
    signal.alarm(0)
    verdict = json.loads(capsys.readouterr().out)
    assert str(path) in verdict["reason"]
    assert (verdict["is_on"], verdict["lasts"]) == (False, False)
    assert not kvikio.open_files


# Verdicts that are kept, and what is done by them.


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    return Measured(str(tmp_path / "measured"))


def test_a_verdict_holds_for_a_boot_a_mount_and_a_device(file: PlainFile, measured: Measured) -> None:
    key = verdict_key(file, "GPU-1")
    assert read_boot_id() in key
    assert find_verdict(measured, key) is None
    verdict = Verdict(is_on=True, reason="9 GB/s")
    assert keep_verdict(measured, key, verdict)
    assert find_verdict(measured, key) == verdict
    assert find_verdict(measured, verdict_key(file, "GPU-2")) is None
    other = PlainFile(file.path, file.identity._replace(dev=file.identity.dev + 1))
    assert find_verdict(measured, verdict_key(other, "GPU-1")) is None
    measured.keep("gds", key, {"is_on": "yes", "reason": 1})
    assert find_verdict(measured, key) is None


class Found:
    """A switch whose cuFile and probe are pretended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, probe: Callable[[Question], Verdict]) -> None:
        self.asked: list[Question] = []
        self.kvikio = FakeKvikio()
        for name in ("kvikio", "kvikio.defaults"):
            monkeypatch.setitem(sys.modules, name, self.kvikio)
        monkeypatch.setattr(gds_switch, "load_driver", lambda: CudaDriver(Answering()))
        monkeypatch.setattr(gds_switch, "load_statistics", lambda: Counting(self.kvikio))

        def ask(question: Question) -> Verdict:
            self.asked.append(question)
            return probe(question)

        monkeypatch.setattr(gds_switch, "ask_probe", ask)

    def decide(self, file: PlainFile, measured: Measured, planned_bytes: int = LARGE) -> GdsSwitch:
        switch = GdsSwitch(GdsHealth(), 0, "")
        switch.decide(file, Device("GPU-1", planned_bytes), measured)
        for thread in threading.enumerate():
            if thread.name == "fastload-gds":
                thread.join(20)
        return switch


class Answering:
    """A driver that says yes."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_: 0


def test_a_probe_that_says_yes_turns_it_on_and_is_kept(
    file: PlainFile, measured: Measured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = Found(monkeypatch, lambda _: Verdict(is_on=True, reason="9 GB/s past the host"))
    with caplog.at_level(logging.INFO, "fastload"):
        assert found.decide(file, measured).files is not None
    (line,) = caplog.messages
    assert line == "GPUDirect Storage is on here: 9 GB/s past the host. FASTLOAD_GDS=on saves the probe"
    assert found.decide(file, measured).files is not None
    assert len(found.asked) == 1, "the second load knows"


def test_a_probe_that_says_no_is_kept_too(
    file: PlainFile, measured: Measured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = Found(monkeypatch, lambda _: Verdict(is_on=False, reason="slower"))
    with caplog.at_level(logging.INFO, "fastload"):
        switch = found.decide(file, measured)
    assert (switch.files, switch.reason) == (None, "slower")
    assert "FASTLOAD_GDS=off saves the probe" in caplog.text
    assert found.decide(file, measured).reason == "slower"
    assert len(found.asked) == 1


def test_a_no_of_the_moment_is_not_kept(
    file: PlainFile, measured: Measured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be one for all models on the mount, until the machine is booted."""
    found = Found(monkeypatch, lambda _: Verdict(is_on=False, reason="no room", lasts=False))
    with caplog.at_level(logging.INFO, "fastload"):
        assert found.decide(file, measured).reason == "no room"
    assert "the next load asks again" in caplog.text
    found.decide(file, measured)
    assert len(found.asked) == 2


def test_where_nothing_can_be_kept_the_log_says_so(
    file: PlainFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = Found(monkeypatch, lambda _: Verdict(is_on=True, reason="fast"))
    with caplog.at_level(logging.INFO, "fastload"):
        assert found.decide(file, Measured(None)).files is not None
    assert "which could not be kept" in caplog.text


def test_a_load_never_waits_for_the_probe(file: PlainFile, measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def probe(_: Question) -> Verdict:
        asked.set()
        go_on.wait(20)
        return Verdict(is_on=True, reason="fast")

    Found(monkeypatch, probe)
    switch = GdsSwitch(GdsHealth(), 0, "")
    switch.decide(file, Device("GPU-1", LARGE), measured)
    assert asked.wait(20)
    assert (switch.files, switch.reason) == (None, "the probe was still running")
    go_on.set()
    deadline = time.monotonic() + 20
    while switch.files is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert switch.files is not None


def test_a_small_load_does_not_begin_one(file: PlainFile, measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Found(monkeypatch, lambda _: Verdict(is_on=True, reason=""))
    switch = found.decide(file, measured, planned_bytes=8 << 30)
    assert "8,589,934,592 bytes are too few" in switch.reason
    assert not found.asked


def test_cufile_that_does_not_open_after_a_yes_is_a_reason(
    file: PlainFile, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Found(monkeypatch, lambda _: Verdict(is_on=True, reason="fast"))
    found.kvikio.failures = {"open": deque([RuntimeError("5027")])}
    switch = found.decide(file, measured)
    assert switch.files is None
    assert "5027" in switch.reason
