"""``deadline``: whatever hangs, the caller gets his error then; nothing goes on, and no process is held back."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
import torch

import fastload
from fastload import DeadlineError, FormatError, Options
from fastload._fetch.deadline import Deadline
from fastload._load.read import pipeline
from fastload.cli import main
from forked import start_python, wait_for
from hub_faults import Drip, Stall
from hub_server import HubServer, Repo
from models import MIB, assert_same, save_large
from proven_models import REPO, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOON = Options(deadline="0.5s")
PATIENCE_S = 20.0
"""Until a test gives up on what should come about a second after the deadline, on a machine that is busy."""


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Lets a call of the system hang, as on a dead mount, until the test is over."""
    released = threading.Event()

    def install(name: str, below: str) -> None:
        real = getattr(os, name)

        def hanging(target: Any = ".", *rest: Any, **more: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
            if below in path:
                released.wait()
            return real(target, *rest, **more)

        monkeypatch.setattr(os, name, hanging)

    yield install
    released.set()


def _overruns(act: Callable[[], object], what: str) -> None:
    begin_s = time.monotonic()
    with pytest.raises(DeadlineError, match=what) as caught:
        act()
    assert 0.5 <= time.monotonic() - begin_s < PATIENCE_S
    assert (caught.value.deadline_s, caught.value.exit_code) == (0.5, 19)
    assert caught.value.hint


@pytest.mark.parametrize("call", ["pread", "stat"])
def test_a_load_of_what_hangs_ends_then(tmp_path: Path, hang: Callable[[str, str], None], call: str) -> None:
    save_large(tmp_path, 16, MIB)
    fastload.load(tmp_path)  # what hangs from here on is storage, not an import
    hang(call, ".safetensors")
    _overruns(lambda: fastload.load(tmp_path, reader="buffered", options=SOON), "loading")
    module = torch.nn.Linear(1, 1)
    _overruns(lambda: fastload.load_into(module, tmp_path, strict=False, options=SOON), "loading")
    _overruns(lambda: list(fastload.stream(tmp_path, options=SOON)), "loading")
    _overruns(lambda: fastload.inspect(tmp_path, options=SOON), "inspecting")


def test_reads_that_hang_in_the_midst_of_a_load_do_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaks_nothing: None
) -> None:
    """Headers come; then a worker hangs. Once its read returns, it ends and closes what it held."""
    monkeypatch.setattr(pipeline, "_JOIN_S", 0.8)  # as it is, where a test is not patient
    expected = save_large(tmp_path, 16, MIB)
    released, real = threading.Event(), os.preadv

    def hanging(*arguments: Any) -> int:
        if threading.current_thread().name.startswith("fastload-") and "within" not in threading.current_thread().name:
            released.wait()
        return real(*arguments)

    monkeypatch.setattr(os, "preadv", hanging)
    try:
        _overruns(lambda: fastload.load(tmp_path, reader="buffered", options=SOON), "loading")
    finally:
        released.set()
    for thread in threading.enumerate():
        if thread.name.startswith("fastload-"):
            thread.join(PATIENCE_S)
    assert_same(fastload.load(tmp_path, reader="buffered"), expected)


def test_a_caller_who_takes_his_time_is_told_with_the_next_tensor(tmp_path: Path, leaks_nothing: None) -> None:
    save_large(tmp_path, 4, MIB)
    fastload.load(tmp_path)
    stream = fastload.stream(tmp_path, options=Options(deadline="3s"))
    next(stream)
    time.sleep(3)
    with pytest.raises(DeadlineError):
        next(stream)
    assert stream.report.tensors == 1


def test_a_load_that_ends_in_time_is_as_without(model: Model, leaks_nothing: None) -> None:
    folder = model.warmed()
    assert_same(fastload.load(folder, options=Options(deadline="1h")), model.tensors)
    assert fastload.verify(folder, options=Options(deadline="1h")).findings == ()
    assert fastload.resolve(folder, options=Options(deadline="1h")).path == str(folder)


def test_verify_resolve_and_listing_end_then(model: Model, hang: Callable[[str, str], None]) -> None:
    model.warmed()
    options = Options(
        local=str(model.local), shared=str(model.shared), tiers=("local", "shared"), deadline="0.5s"
    )  # fmt: skip
    hang("preadv", "/blobs/")
    _overruns(lambda: fastload.verify(REPO, options=options), "verifying")
    hang("listdir", str(model.local))
    _overruns(lambda: fastload.resolve(REPO, options=options), "resolving")
    _overruns(lambda: fastload.snapshots(options=options), "listing")
    _overruns(lambda: fastload.warm(REPO, options=options), "warming")


@pytest.mark.parametrize("verb", ["load", "verify"])
def test_the_command_ends_with_19_and_its_process_with_it(tmp_path: Path, verb: str) -> None:
    """Threads that hang in reads keep no process from ending."""
    save_large(tmp_path, 16, MIB)
    assert main(["verify", str(tmp_path), "--record"]) == 0
    script = f"""
import os, sys, threading
import torch
from fastload.cli import main
real = os.preadv
def hanging(*arguments):
    if threading.current_thread().name.startswith(("fastload-0", "fastload-1", "fastload-2", "fastload-work")):
        threading.Event().wait()
    return real(*arguments)
os.preadv = hanging
sys.exit(main(["{verb}", sys.argv[1], "--deadline", "1s"]))
"""
    done = wait_for(start_python(["-c", script, str(tmp_path)], torch=True), timeout=60)
    assert done.returncode == 19, done.stderr
    assert "did not end within 1 s" in done.stderr


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """6 MB/s, as of storage that others keep busy."""
    real = os.preadv

    def install() -> None:
        def crawl(descriptor: int, buffers: list[memoryview], *rest: int) -> int:
            time.sleep(sum(map(len, buffers)) / 6e6)
            return real(descriptor, buffers, *rest)

        monkeypatch.setattr(os, "preadv", crawl)

    return install


def _stream(folder: Path) -> object:
    return list(fastload.stream(folder, verify="require", reader="buffered", options=SOON))


@pytest.mark.parametrize(
    ("place", "act"),
    [
        (Model.recorded, lambda folder: fastload.verify(folder, options=SOON)),
        (Model.downloaded, lambda folder: fastload.verify(folder, options=SOON)),
        (Model.downloaded, lambda folder: fastload.verify(folder, record=True, options=SOON)),
        (Model.recorded, lambda folder: fastload.load(folder, reader="buffered", options=SOON)),
        (Model.downloaded, _stream),
    ],
    ids=["verify blocks", "verify files", "record", "load", "prove before a stream"],
)
def test_what_is_merely_slow_leaves_nothing_behind(
    model: Model,
    slow: Callable[[], None],
    place: Callable[[Model], Path],
    act: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
    leaks_nothing: None,
) -> None:
    """Whoever does the work sees that it is over, and has ended by when the caller is told."""
    monkeypatch.setattr(
        Deadline.__init__, "__kwdefaults__", {"grace_s": 60.0}
    )  # a machine that is busy may take so long
    folder = place(model)
    fastload.load(folder)
    slow()
    before = sorted(folder.rglob("*"))
    with pytest.raises(DeadlineError):
        act(folder)
    assert sorted(folder.rglob("*")) == before


def test_what_a_load_had_brought_waits_for_whoever_warms(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (model.files[f"model-0000{n}-of-00002.safetensors"] for n in (1, 2))
    with HubServer({REPO: Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = Options(local=str(model.local))
        fastload.inspect(REPO, options=options)  # what takes its time from here on is the hub, not an import
        hub.faults.add(Stall(MIB, 30.0), host="cdn", path=f"/cdn/{sha256(second).hexdigest()}/*", times=None)
        with pytest.raises(DeadlineError):
            fastload.load(REPO, options=replace(options, deadline="4s"))
        hub.faults.clear()
        served = hub.served_bytes("safetensors")
        fastload.warm(REPO, options=options)
        assert hub.served_bytes("safetensors") - served < len(first) + len(second) / 2
        assert_same(fastload.load(REPO, options=options), model.tensors)


def test_ctrl_c_ends_what_waits_for_a_deadline(
    model: Model, hang: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from the first thread that hangs."""
    folder = model.warmed()
    fastload.load(folder)
    hang("preadv", "/blobs/")
    hanging, not_pressed = os.preadv, threading.Lock()

    def press(*arguments: Any) -> int:
        if not_pressed.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        return hanging(*arguments)

    monkeypatch.setattr(os, "preadv", press)
    # Python's own handler: the command's, which a test may have left here, takes Ctrl-C for the end of the process.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    begin_s = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            fastload.verify(folder, options=Options(deadline="1h"))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - begin_s < PATIENCE_S


def test_what_comes_too_late_is_let_go() -> None:
    begun, release, discarded = threading.Event(), threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        release.wait(PATIENCE_S)
        return 7

    deadline = Deadline(0.1, "waiting")
    with pytest.raises(DeadlineError):
        deadline.within(work, lambda result: discarded.set() if result == 7 else None)
    assert begun.wait(PATIENCE_S)
    assert not discarded.is_set()
    release.set()
    assert discarded.wait(PATIENCE_S)
    with pytest.raises(DeadlineError):
        deadline.check()


def test_what_fails_in_the_last_moment_says_why() -> None:
    """A hub that is asked for as long as there is time gives its own reason then."""

    def fail() -> None:
        time.sleep(0.3)
        raise FormatError("x", "y", "z")

    with pytest.raises(FormatError):
        Deadline(0.1, "failing", grace_s=PATIENCE_S).within(fail)


def test_an_error_of_the_work_is_its_own() -> None:
    def fail() -> None:
        raise FormatError("x", "y", "z")

    for after_s in (None, 60.0):
        with pytest.raises(FormatError):
            Deadline(after_s, "failing").within(fail)


def test_a_hub_that_does_not_answer_ends_then_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(model.files)}) as hub:
        url = hub.url
    monkeypatch.setenv("HF_ENDPOINT", url)  # nobody listens there any more; usually it is asked for half a minute
    options = Options(local=str(model.local), deadline="0.5s")
    begin_s = time.monotonic()
    with pytest.raises((DeadlineError, fastload.NetworkError)):
        fastload.load(REPO, options=options)
    assert time.monotonic() - begin_s < PATIENCE_S


@pytest.mark.parametrize("host", ["hub", "cdn"])
def test_a_hub_that_drips_is_not_listened_to_for_long_after(
    model: Model, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """A byte now and then is no silence: the thread that reads them stayed for half a minute, with its connection."""
    with HubServer({REPO: Repo(model.files)}) as hub:
        hub.faults.add(Drip(step_bytes=1, pause_s=0.02), host=host, times=None)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = replace(SOON, local=str(model.local), tiers=("local", "hub"))
        before = set(threading.enumerate())
        with pytest.raises((DeadlineError, fastload.HubError)):
            fastload.load(REPO, options=options)
        until_s = time.monotonic() + 10.0
        while any(thread.name == "fastload-within" for thread in set(threading.enumerate()) - before):
            assert time.monotonic() < until_s
            time.sleep(0.05)
