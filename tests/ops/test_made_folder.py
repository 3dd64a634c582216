"""What ``bench`` makes is gone when it has ended, however impatient who ended it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fastload.ops.bench.made_folder import made_folder

if TYPE_CHECKING:
    from pathlib import Path

FILES = 3000


def fill(folder: str) -> None:
    for number in range(FILES):
        with open(os.path.join(folder, str(number)), "w"):
            pass


def press_again(folder: str) -> None:
    """Ctrl-C, as soon as the folder is being removed."""
    while len(os.listdir(folder)) == FILES:
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.SIGINT)


def measure(above: str, *, is_ended: bool) -> None:
    """``is_ended``: by a Ctrl-C before."""
    with made_folder(above, "made-") as folder:
        assert os.path.basename(folder).startswith("made-")
        fill(folder)
        threading.Thread(target=press_again, args=(folder,)).start()
        if is_ended:
            raise KeyboardInterrupt


@pytest.mark.parametrize("is_first", [False, True])
def test_ctrl_c_while_it_is_removed_comes_after_that(tmp_path: Path, *, is_first: bool) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        measure(str(tmp_path), is_ended=not is_first)
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_it_goes_too(tmp_path: Path) -> None:
    def make() -> None:
        with made_folder(str(tmp_path)) as folder:
            fill(folder)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert os.listdir(tmp_path) == []
