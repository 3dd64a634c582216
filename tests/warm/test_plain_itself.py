"""``--plain DIR`` where DIR itself is what the name means: it is the target, and gives nothing to itself."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

from fastload.cli import main
from hub_server import HubServer, Repo
from stored_models import COMMIT, model_files, write_cache, write_folder
from warming import content, tree

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"


class Place:
    """A local tier and a mount, and below one of them the folder that the name leads to."""

    def __init__(self, top: Path, tier: str) -> None:
        self.local, self.shared = top / "local", top / "shared"
        self.local.mkdir()
        self.shared.mkdir()
        self.folder = top / tier / "org" / "name"

    def warm(self, *words: object, name: str = REPO, tiers: str = "local,shared", to: Path | None = None) -> int:
        """The exit code of ``fastload warm NAME --plain DIR``."""
        places = ["--local", str(self.local), "--shared", str(self.shared), "--tiers", tiers]
        return main(["warm", name, "--plain", str(to or self.folder), *places, *map(str, words)])


@pytest.fixture(params=["shared", "local"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return Place(tmp_path, request.param)


def test_what_the_hub_gave_is_asked_for_again_and_not_fetched(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    files, newer = model_files(1), model_files(2)
    with HubServer({REPO: Repo(files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert place.warm(tiers="local,shared,hub") == 0
        before, asked = tree(place.folder), len(hub.requests)
        assert place.warm(tiers="local,shared,hub") == 0
        assert len(hub.requests) - asked == 1
        assert place.warm() == 0
        assert tree(place.folder) == before
    with HubServer({REPO: Repo(newer)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert place.warm(tiers="local,shared,hub") == 0
    assert content(place.folder) == newer


def test_with_the_hub_away_what_is_there_serves_with_a_warning(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with HubServer({REPO: Repo(model_files())}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert place.warm(tiers="local,shared,hub") == 0
    before = tree(place.folder)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert place.warm("--deadline", "2s", tiers="local,shared,hub") == 0
    said = capsys.readouterr()
    assert said.out == f"{place.folder}\n"
    assert f"taking what {place.folder} has" in said.err
    branch = f"{REPO}@dev"
    assert place.warm("--deadline", "2s", name=branch, tiers="local,shared,hub") == 10, "what is there may be another"
    assert tree(place.folder) == before


def test_a_folder_of_somebody_elses_is_refused_and_not_touched(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(place.folder, model_files())
    (tmp_path / "link").symlink_to(place.folder)
    before = tree(place.folder)
    for to in (place.folder, tmp_path / "link"):
        assert place.warm(to=to) == 2
        assert f"{REPO} itself" in capsys.readouterr().err
    assert tree(place.folder) == before


def test_another_copy_gives_it_what_it_has_lost(place: Place, tmp_path: Path) -> None:
    files = model_files()
    write_cache(tmp_path / "other", REPO, COMMIT, files)
    both = ["--shared", f"{place.shared}:{tmp_path / 'other'}"]
    assert place.warm(*both) == 0
    (place.folder / "tokenizer.json").unlink()
    assert place.warm(*both) == 0
    assert content(place.folder) == files


def test_where_nobody_gives_what_it_has_lost_its_manifest_stays(place: Place) -> None:
    write_cache(place.shared, "org/source", COMMIT, model_files())
    assert place.warm(name="org/source") == 0
    before = tree(place.folder)
    assert place.warm() == 0, "whole, it is what the name means"
    assert tree(place.folder) == before
    (place.folder / "tokenizer.json").unlink()
    before = tree(place.folder)
    assert place.warm() == 2
    assert tree(place.folder) == before
