"""Signals while torch is imported: held where the process lives on, insisted on where it ends."""

from __future__ import annotations

import gc
import resource
import signal
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from fastload._load.importing import Leaving, importing_torch
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    interrupt, alarm = map(signal.getsignal, (signal.SIGINT, signal.SIGALRM))
    signal.setitimer(signal.ITIMER_REAL, 500)
    yield
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 400, "somebody else's timer was taken away"
    assert signal.getsignal(signal.SIGALRM) == alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGINT, interrupt)


def _interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def _swallow_interrupt() -> None:
    """As some modules do that torch imports: they catch whatever comes."""
    with suppress(BaseException):
        _interrupt()


def _run(*steps: Callable[[], None]) -> list[Callable[[], None]]:
    """The steps that ended normally while torch was being imported; then comes the interrupt."""
    ended: list[Callable[[], None]] = []

    def take_all() -> None:
        with importing_torch():
            for step in steps:
                step()
                ended.append(step)

    with pytest.raises(KeyboardInterrupt):
        take_all()
    return ended


def _wait() -> None:
    time.sleep(30)


def test_signal_waits_for_the_import_but_a_second_one_does_not() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert _run(_interrupt) == [_interrupt]
    assert _run(_interrupt, _interrupt) == [_interrupt]


def test_signal_that_ends_the_process_does_not_wait() -> None:
    signal.signal(signal.SIGINT, Leaving(KeyboardInterrupt))
    assert _run(_interrupt) == []


def test_signal_that_ends_the_process_is_not_swallowed_for_long() -> None:
    signal.signal(signal.SIGINT, Leaving(KeyboardInterrupt))
    assert _run(_swallow_interrupt, _wait) == [_swallow_interrupt]


def _fail_instead() -> None:
    """As numpy does: whatever ends its import becomes an error that tells how to install it anew."""
    try:
        _interrupt()
    except BaseException as exc:
        raise ImportError("numpy is broken") from exc


def test_signal_that_became_another_error_is_still_the_reason() -> None:
    signal.signal(signal.SIGINT, Leaving(KeyboardInterrupt))
    assert _run(_fail_instead) == []


def test_an_import_that_fails_by_itself_says_so() -> None:
    signal.signal(signal.SIGINT, Leaving(KeyboardInterrupt))
    with pytest.raises(ImportError), importing_torch():
        raise ImportError


def test_a_module_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first load in a process that has used up its descriptors."""
    (tmp_path / "imported_nowhere_else.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def load_first() -> None:
        with importing_torch():
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            try:
                import_module("imported_nowhere_else")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(StoreError, match="Too many open files"):
        load_first()


def test_signal_that_was_swallowed_at_the_very_end_is_raised_then() -> None:
    signal.signal(signal.SIGINT, Leaving(KeyboardInterrupt))
    assert _run(_swallow_interrupt) == [_swallow_interrupt]


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_looked_for_afterwards_as_before(*, collects: bool) -> None:
    if not collects:
        gc.disable()
    try:
        with importing_torch():
            assert not gc.isenabled()
        assert gc.isenabled() is collects
    finally:
        gc.enable()
