"""docs/upgrade-and-rollback.md does what it says: its commands, in order, in one shell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from stored_models import model_files, write_folder
from warming import content, environment

PAGE = Path(__file__).parents[2] / "docs" / "upgrade-and-rollback.md"


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    write_folder(tmp_path / "mount" / "my-model", model_files(0))
    new = write_folder(tmp_path / "new", model_files(1))
    where = {"HOME": str(tmp_path / "home"), "FASTLOAD_SHARED": str(tmp_path / "mount"), "NEW_WEIGHTS": str(new)}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    script = "set -eu\n" + "\n".join(blocks)
    done = subprocess.run(
        ["sh", "-c", script], env=environment(**where, PATH=path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    link = tmp_path / "home/serve/my-model"
    assert content(link.resolve()) == model_files(1)
    snapshots = tmp_path / "home/models/models--my-model/snapshots"
    assert [folder.name for folder in snapshots.iterdir()] == [link.resolve().name]
