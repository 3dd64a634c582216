"""``progress=``: a callback, a bar on a terminal, lines in a log."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import _progress as module
from models import save_large

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaks_nothing")


def test_callback_sees_bytes_grow_to_the_total(tmp_path: Path) -> None:
    save_large(tmp_path)
    seen: list[tuple[int, int]] = []
    fastload.load(tmp_path, progress=lambda done, total: seen.append((done, total)))
    done = [now for now, _ in seen]
    assert done == sorted(done)
    assert done[-1] == seen[0][1]
    assert len({total for _, total in seen}) == 1


def test_what_a_callback_raises_ends_the_load(tmp_path: Path) -> None:
    save_large(tmp_path)

    def fail(_done: int, _total: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        fastload.load(tmp_path, progress=fail)


@pytest.mark.parametrize("take_all", [fastload.load, lambda *args, **more: dict(fastload.stream(*args, **more))])
def test_a_callback_cannot_pass_for_the_end(tmp_path: Path, take_all: Callable[..., object]) -> None:
    """As within a generator: what it raises, a spent iterator's StopIteration, is no end of the tensors."""
    save_large(tmp_path)
    spent = iter(())
    with pytest.raises(RuntimeError, match="StopIteration"):
        take_all(tmp_path, progress=lambda _done, _total: next(spent))


def test_log_gets_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY_S", 0.0)
    save_large(tmp_path)
    fastload.load(tmp_path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(re.fullmatch(r"fastload: 0\.\d of 0\.1 GiB \(\d+%\), \d+\.\d\d GB/s", line) for line in lines)


def test_lines_come_every_ten_seconds() -> None:
    log = io.StringIO()
    lines = module.Lines(100, log)
    for done in range(100):
        lines.update(done)
    assert not log.getvalue()


def test_silence_where_stderr_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_large(tmp_path)
    fastload.load(tmp_path)
    fastload.load(tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("size", [(24, 100), (0, 0)], ids=["a window", "no size known"])
def test_bar_on_a_terminal(tmp_path: Path, size: tuple[int, int]) -> None:
    save_large(tmp_path)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    code = f"import fastload, threading; fastload.load({str(tmp_path)!r}); print(threading.active_count())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = os.read(ours, 65536).decode()
        assert process.stdout is not None
        assert process.stdout.read() == b"1\n", "tqdm's monitor is a thread that nothing ends"
        assert process.wait() == 0
    os.close(ours)
    assert "64.0M" in shown
