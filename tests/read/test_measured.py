"""Measurements that outlive a process, and all that may be wrong with their files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fastload._read.measured import Measured
from fastload._system_file import read_boot_id

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_kept_is_found_by_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert Measured(str(folder)).find("gds", "key") is None
    assert Measured(str(folder)).keep("gds", "key", {"is_on": True})
    assert Measured(str(folder)).find("gds", "key") == {"is_on": True, "key": "key"}
    assert Measured(str(folder)).find("gds", "other") is None
    assert Measured(str(folder)).find("depth", "key") is None
    assert len(list(folder.iterdir())) == 1, "no scratch file is left"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "other"}', b"\xff", b"[" * 50_000])
def test_a_file_that_is_not_ours_is_a_measurement_not_yet_made(tmp_path: Path, content: bytes) -> None:
    measured = Measured(str(tmp_path))
    measured.keep("gds", "key", {})
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert measured.find("gds", "key") is None
    assert measured.keep("gds", "key", {"is_on": False})
    assert measured.find("gds", "key") == {"is_on": False, "key": "key"}


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    measured = Measured(str(tmp_path / "file" / "below"))
    assert not measured.keep("gds", "key", {})
    assert measured.find("gds", "key") is None
    assert not Measured(None).keep("gds", "key", {})
    assert Measured(None).find("gds", "key") is None


def test_a_folder_that_is_full_leaves_no_scratch_file(tmp_path: Path) -> None:
    measured = Measured(str(tmp_path))
    measured.keep("gds", "key", {})
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()  # what the new file would replace cannot be replaced
    assert not measured.keep("gds", "key", {})
    assert os.listdir(tmp_path) == [file.name]


def test_the_boot_has_a_name() -> None:
    assert len(read_boot_id()) == 36
