"""A hub that refuses takes nothing away: what a folder has complete serves, with a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hub_faults import Refuse
from hub_server import HubServer, Repo
from stored_models import model_files, write_cache
from warming import Tiers, content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "org/name"
FILES = model_files() | {"README.md": b"hi"}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """Gives the model to nobody."""
    with HubServer({REPO: Repo(FILES, is_gated=True)}) as server:
        yield server


@pytest.fixture
def tiers(tmp_path: Path, hub: HubServer) -> Tiers:
    return Tiers(tmp_path, tiers="local,shared,hub", more={"HF_ENDPOINT": hub.url})


@pytest.mark.parametrize("tier", ["local", "shared"])
@pytest.mark.parametrize("is_pinned", [False, True])
def test_what_a_folder_has_serves_where_the_model_is_gated(
    tiers: Tiers, hub: HubServer, tier: str, *, is_pinned: bool
) -> None:
    """Complete by structure alone: the hub is asked what else there may be, here a README, and does not give it."""
    commit = hub.repos[REPO].commit
    write_cache(getattr(tiers, tier), REPO, commit, model_files())
    done = tiers.run("warm", f"{REPO}@{commit}" if is_pinned else REPO)
    assert done.returncode == 0, done.stderr
    assert content(tiers.repo(REPO) / "snapshots" / commit) == model_files()
    assert ("hub was passed over" in done.stderr and "the model is gated" in done.stderr) is (tier == "local")


@pytest.mark.parametrize("status", [401, 402, 403, 451])
def test_what_is_local_serves_whatever_the_hub_refuses_with(tmp_path: Path, status: int) -> None:
    with HubServer({REPO: Repo(FILES)}) as hub:
        tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
        snapshot = tiers.warm(REPO)
        hub.faults.add(Refuse(status), path="/api/*", times=None)
        tiers.more |= {"HF_TOKEN": "hf_expired"}
        done = tiers.run("warm", REPO)
    assert done.returncode == 0 and "taking what local has" in done.stderr, done.stderr
    assert done.stdout.strip() == str(snapshot)


def test_a_plain_folder_serves_itself_where_the_hub_refuses(tmp_path: Path) -> None:
    with HubServer({REPO: Repo(FILES)}) as hub:
        tiers = Tiers(tmp_path, tiers="local,hub", more={"HF_ENDPOINT": hub.url})
        plain = tmp_path / "plain"
        tiers.warm(REPO, "--plain", plain)
        hub.faults.add(Refuse(403), path="/api/*", times=None)
        done = tiers.run("warm", REPO, "--plain", plain)
    assert done.returncode == 0 and f"taking what {plain} has" in done.stderr, done.stderr


def test_what_nobody_else_has_is_refused(tiers: Tiers) -> None:
    done = tiers.run("warm", REPO)
    assert done.returncode == 11 and "gated" in done.stderr


def test_what_is_lacking_is_not_called_there(tiers: Tiers, hub: HubServer) -> None:
    """Only the hub can say what there is of it."""
    write_cache(tiers.local, REPO, hub.repos[REPO].commit, model_files())
    tiers.warm(REPO)
    done = tiers.run("warm", REPO, "--include", "*.gguf")
    assert done.returncode == 11, done.stderr
