"""What ``bench`` makes is gone when it has ended, however impatient who ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from fastload.ops.bench.made_folders import MadeFolders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FILES = 30


def fill(folder: str) -> None:
    for number in range(FILES):
        with open(os.path.join(folder, str(number)), "w"):
            pass


def press_again_within_removal(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, from another thread, when half of the files are gone."""
    unlink, removed = os.unlink, count()

    def remove(*arguments: Any, **keywords: Any) -> None:
        if next(removed) == FILES // 2:
            pressing = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
            pressing.start()
            pressing.join()
        unlink(*arguments, **keywords)

    patch.setattr(os, "unlink", remove)


def measure(above: str, *, is_ended: bool) -> None:
    """``is_ended``: by a Ctrl-C before."""
    with MadeFolders() as folders:
        folder = folders.make(above, "made-")
        assert os.path.basename(folder).startswith("made-")
        fill(folder)
        if is_ended:
            raise KeyboardInterrupt


@pytest.mark.parametrize("is_first", [False, True])
def test_ctrl_c_while_it_is_removed_comes_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_first: bool
) -> None:
    press_again_within_removal(monkeypatch)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        measure(str(tmp_path), is_ended=not is_first)
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_it_goes_too(tmp_path: Path) -> None:
    def make() -> None:
        with MadeFolders() as folders:
            fill(folders.make(str(tmp_path)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert os.listdir(tmp_path) == []


def note(came: list[int], number: int) -> Callable[[int, object], None]:
    def handle(*_: object) -> None:
        came.append(number)
        raise InterruptedError(number)

    return handle


@pytest.fixture
def came() -> Iterator[list[int]]:
    """The signals that handlers were told of, each of which raises."""
    numbers: list[int] = []
    before = {number: signal.signal(number, note(numbers, number)) for number in (signal.SIGINT, signal.SIGTERM)}
    yield numbers
    for number, was in before.items():
        signal.signal(number, was)


def make_two(above: Path, signal_within: int | None = None) -> None:
    with MadeFolders() as folders:
        folders.make(str(above))
        folders.make(str(above))
        if signal_within is not None:
            signal.raise_signal(signal_within)


def test_all_that_came_is_told_afterwards_though_the_removal_fails(
    tmp_path: Path, came: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cleanup = tempfile.TemporaryDirectory.cleanup

    def fail(self: tempfile.TemporaryDirectory[str]) -> None:
        cleanup(self)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert came == []
        raise OSError("no")

    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", fail)
    with pytest.raises(InterruptedError):
        make_two(tmp_path)
    assert Counter(came) == {signal.SIGINT: 2, signal.SIGTERM: 2}


def test_all_folders_are_gone_before_anything_is_told(
    tmp_path: Path, came: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cleanup = tempfile.TemporaryDirectory.cleanup

    def interrupted(self: tempfile.TemporaryDirectory[str]) -> None:
        signal.raise_signal(signal.SIGINT)
        cleanup(self)

    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", interrupted)
    with pytest.raises(InterruptedError):
        make_two(tmp_path)
    assert os.listdir(tmp_path) == []
    assert came == [signal.SIGINT, signal.SIGINT]


def test_a_signal_while_it_is_measured_is_handled_as_ever(tmp_path: Path, came: list[int]) -> None:
    with pytest.raises(InterruptedError):
        make_two(tmp_path, signal.SIGTERM)
    assert came == [signal.SIGTERM]
    assert os.listdir(tmp_path) == []


def test_one_that_comes_while_handlers_are_set_leaves_none_that_does_nothing(
    tmp_path: Path, came: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_handler = signal.signal

    def interrupted(number: int, handler: object) -> object:
        was = set_handler(number, handler)  # type: ignore[arg-type]
        if number == signal.SIGINT:
            signal.raise_signal(signal.SIGTERM)
        return was

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(InterruptedError):
        make_two(tmp_path)
    monkeypatch.undo()
    with pytest.raises(InterruptedError):
        signal.raise_signal(signal.SIGINT)
    assert came == [signal.SIGTERM, signal.SIGINT]


def test_what_nobody_handles_ends_the_process_as_ever(tmp_path: Path) -> None:
    program = f"""if True:
        import os, signal
        from fastload.ops.bench.made_folders import MadeFolders
        with MadeFolders() as folders:
            folders.make({str(tmp_path)!r})
            os.kill(os.getpid(), signal.SIGTERM)
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGTERM
