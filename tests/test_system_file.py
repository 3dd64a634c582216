"""What the kernel says is read as it is spelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._system_file import read_line, read_lines

if TYPE_CHECKING:
    from pathlib import Path


def test_a_line_ends_where_the_kernel_ends_it(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_bytes("a\rb c\n\nd\u2028e\n".encode())
    assert read_lines(str(tmp_path / "mounts")) == ["a\rb c", "d\u2028e"]
    assert read_line(str(tmp_path / "mounts")) == "a\rb c"


def test_one_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert read_lines(str(tmp_path / "none")) == []
    assert not read_line(str(tmp_path / "none"))
