"""A mount that answers nobody: what is local is as quick as without it, whatever ``warm`` asks of it.

What hangs here are the system calls themselves, not our functions that make them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options, StaleWarning
from fastload.cli import main
from hanging import dead_mount
from stopwatch import Stopwatch
from stored_models import COMMIT, OTHER_COMMIT, model_files, write_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "org/name"
LIMIT_S = 2.5
"""At most 1.5 s are waited, for whether there is something newer; the rest is for a machine that is busy."""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Options]:
    """Of a local tier with a copy of what is on a mount, and a model of its own; then the mount dies."""
    dead, local = tmp_path / "dead", tmp_path / "local"
    write_cache(dead, REPO, COMMIT, model_files())
    write_cache(local, "org/own", OTHER_COMMIT, model_files(1))
    made = Options(local=str(local), shared=(str(dead),), tiers=("local", "shared"), min_free="0")
    fastload.warm(REPO, options=made)
    with dead_mount(monkeypatch, str(dead)):
        yield made


@contextmanager
def quick() -> Iterator[None]:
    with Stopwatch() as watch:
        yield
    assert watch.seconds < LIMIT_S


def test_a_moving_name_that_came_from_there(options: Options) -> None:
    with quick(), pytest.warns(StaleWarning, match="could not be asked.*taking what local has"):
        assert fastload.warm(REPO, options=options).commit == COMMIT


@pytest.mark.parametrize("name", [f"{REPO}@{COMMIT}", "org/own"])
def test_what_never_needs_it(options: Options, name: str) -> None:
    with quick():
        assert fastload.resolve(name, options=options).tier == "local"
        assert fastload.warm(name, options=options).tier == "local"


@pytest.mark.parametrize("name", [f"{REPO}@{COMMIT}", "org/own"])
@pytest.mark.usefixtures("capsys")
def test_a_plain_folder_beside_it(options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is seen whether the folder is a part of that tier, as far as its path says."""
    monkeypatch.setenv("FASTLOAD_LOCAL", str(options.local))
    monkeypatch.setenv("FASTLOAD_SHARED", str(tmp_path / "dead"))
    monkeypatch.setenv("FASTLOAD_TIERS", "local,shared")
    with quick():
        assert main(["warm", name, "--plain", str(tmp_path / "plain")]) == 0
    assert (tmp_path / "plain/config.json").exists()
    assert main(["warm", name, "--plain", str(tmp_path)]) == 2
