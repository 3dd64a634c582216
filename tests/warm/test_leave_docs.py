"""docs/leave.md does what it says: by default settings, and what is left is what the hub's own client wants."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hub_server import HubServer, Repo
from stored_models import model_files
from warming import environment

PAGE = Path(__file__).parents[2] / "docs" / "leave.md"
REPO = "org/model"
FILES = model_files(5)
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
_LOAD_OFFLINE = """
import sys
from pathlib import Path
from huggingface_hub import snapshot_download
folder = Path(snapshot_download(sys.argv[1], revision=sys.argv[2], local_files_only=True))
print(*sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.parametrize("settings", [{}, {"FASTLOAD_LOCAL": "models"}], ids=["default", "local"])
def test_the_commands_of_the_page(settings: dict[str, str], tmp_path: Path) -> None:
    """After them the hub's client has the model, whole and without a network, and nothing of fastload is left."""
    home = tmp_path / "home"
    local = {name: str(home / folder) for name, folder in settings.items()}
    home.mkdir()
    *before, uninstall = BLOCKS
    assert "pip uninstall" in uninstall and len(before) >= 2
    repo = Repo(FILES)
    with HubServer({REPO: repo}) as hub:
        where = environment(HOME=str(home), HF_ENDPOINT=hub.url, **local)
        where["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        # A load, so that there are reports too.
        script = "\n".join(["set -eu", "fastload load org/model --no-progress", *before])
        done = subprocess.run(["sh", "-c", script], env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path for path in home.rglob("*") if "fastload" in path.name] == []
    cache = Path(local["FASTLOAD_LOCAL"]) if local else home / ".cache" / "huggingface" / "hub"
    assert _load_offline(REPO, repo.commit, cache) == sorted(FILES)
    assert "HFValidationError" in _refusal(f"{REPO}@{repo.commit}", repo.commit, cache)


def test_the_page_takes_nothing_where_it_does_not_know_the_cache(tmp_path: Path) -> None:
    """An empty variable before ``/.locks/fastload`` would be the machine's own folder."""
    (removal,) = (block for block in BLOCKS if "rm -r" in block)
    for script in (removal, f"cache=\n{removal}"):
        done = subprocess.run(
            ["sh", "-c", script],
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0 and b"cache" in done.stderr


def _load_offline(repo: str, commit: str, cache: Path) -> list[str]:
    return _run(repo, commit, cache).stdout.split()


def _refusal(repo: str, commit: str, cache: Path) -> str:
    return _run(repo, commit, cache).stderr


def _run(repo: str, commit: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """In a process without fastload's settings, as after leaving."""
    where = environment(HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    command = [sys.executable, "-c", _LOAD_OFFLINE, repo, commit]
    return subprocess.run(command, env=where, capture_output=True, text=True, check=False)
