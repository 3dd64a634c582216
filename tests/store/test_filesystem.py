"""What the system's refusals become."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import pytest

from fastload._read.file import translate
from fastload._store.filesystem import put_link, translate_write
from fastload._store.refusal import system_refusals
from fastload.errors import MemoryBudgetError, NoSpaceError, NotWritableError, StoreError

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType


def refused(code: int, path: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), path)


@pytest.mark.parametrize("path", ["stdout", "/nowhere/at/all", "relative/path"])
def test_what_may_not_be_written_may_have_any_name(path: str) -> None:
    error = translate_write(path, refused(errno.EACCES))
    assert isinstance(error, NotWritableError)
    assert "Permission denied" in error.reason


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_what_finds_no_descriptor_says_whose_limit_it_is(code: int) -> None:
    """The storage is as it should be."""
    for error in (translate_write("x", refused(code)), translate("x", refused(code))):
        assert isinstance(error, StoreError)
        assert ("ulimit -n" if code == errno.EMFILE else "fs.file-max") in error.hint


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (refused(errno.ESTALE, "/mnt/models"), StoreError),
        (refused(errno.ENOMEM), StoreError),
        (refused(errno.ENOSPC, "/mnt/models"), NoSpaceError),
        (MemoryError(), MemoryBudgetError),
    ],
)
def test_what_nobody_expected_is_ours(raw: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, system_refusals():
        raise raw
    assert caught.value.__cause__ is raw


def test_who_reads_our_output_may_leave() -> None:
    with pytest.raises(BrokenPipeError), system_refusals():
        raise BrokenPipeError


@pytest.mark.parametrize("call", [os.symlink, os.replace])
def test_ctrl_c_stays_what_it_is_while_a_link_is_put(tmp_path: Path, call: object) -> None:
    """When the system has done what was asked, and Python goes on."""

    def press(_frame: FrameType, event: str, called: object) -> None:
        if event == "c_return" and called is call:
            sys.setprofile(None)
            raise KeyboardInterrupt

    path, made = str(tmp_path / "link"), str(tmp_path / "made")
    sys.setprofile(press)
    with pytest.raises(KeyboardInterrupt):
        put_link(path, "target", made)
    assert os.listdir(tmp_path) == (["link"] if call is os.replace else [])
