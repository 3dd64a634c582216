"""A recorded plain folder below a tier, of which a shard is gone or cut: it is damaged, by name as by path."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError, ModelNotFoundError, Options
from fastload.cli import main
from fastload.integrations.names import bring
from hub_server import HubServer, Repo
from models import assert_same
from stored_models import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proven_models import Model

SHARD = "model-00001-of-00002.safetensors"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def cut_unseen(path: Path) -> None:
    status = path.stat()
    cut(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], None]] = {"lost": os.unlink, "cut": cut, "cut-unseen": cut_unseen}


def recorded(model: Model, root: Path, name: str) -> Path:
    folder = write_folder(root / name, model.files)
    fastload.verify(folder, record=True)
    return folder


@pytest.mark.parametrize("tier", ["local", "shared"])
@pytest.mark.parametrize("name", ["bare", "org/name"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=tuple(DAMAGES))
def test_it_is_damaged_and_not_nowhere(
    model: Model, tier: str, name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recorded(model, getattr(model, tier), name)
    damage(folder / SHARD)
    with pytest.raises(IntegrityError) as by_path:
        fastload.load(folder, options=model.options)
    with pytest.raises(IntegrityError) as by_name:
        fastload.load(name, options=model.options)
    assert by_name.value.path == by_path.value.path
    with pytest.raises(IntegrityError):
        list(fastload.stream(name, options=model.options))
    found = fastload.resolve(name, options=model.options)
    assert (found.path, found.complete) == (str(folder), False)
    with pytest.raises(ModelNotFoundError, match="Incomplete"):  # what may have been cut on purpose is not brought
        fastload.warm(name, options=model.options)
    flags = ["--local", str(model.local), "--shared", str(model.shared), "--tiers", "local,shared", "--json"]
    assert main(["load", name, *flags]) == 13
    assert json.loads(capsys.readouterr().out)["exit_code"] == 13


def test_what_another_tier_has_whole_serves_instead(model: Model) -> None:
    os.unlink(recorded(model, model.local, "bare") / SHARD)
    write_folder(model.shared / "bare", model.files)
    assert_same(fastload.load("bare", options=model.options), model.tensors)


def test_so_does_the_hub(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    os.unlink(recorded(model, model.local, "org/name") / SHARD)
    options = Options(local=str(model.local), write_through="off")
    with HubServer({"org/name": Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert_same(fastload.load("org/name", options=options), model.tensors)
    with HubServer({"org/other": Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(IntegrityError, match=SHARD):
            fastload.load("org/name", options=options)


def test_doctor_says_so_whatever_the_hub_has(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.unlink(recorded(model, model.local, "org/name") / SHARD)
    with HubServer({"org/other": Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert main(["doctor", "org/name", "--local", str(model.local)]) == 22
    said = capsys.readouterr().out
    assert SHARD in said and "IntegrityError, exit code 13" in said


def test_and_what_a_host_asks_for(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recorded(model, model.local, "org/name")
    os.unlink(folder / SHARD)
    options = Options(local=str(model.local))
    with HubServer({"org/name": Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        brought = bring("org/name", None, options)
        assert brought.complete and brought.path != str(folder)
        assert_same(fastload.load(brought.path, options=options), model.tensors)
    shutil.rmtree(model.local / "models--org--name")
    assert bring("org/name", None, replace(options, tiers=("local",))).path == str(folder)


def test_a_folder_of_which_nobody_has_said_what_is_in_it_is_incomplete_as_before(model: Model) -> None:
    folder = write_folder(model.local / "bare", model.files)
    os.unlink(folder / SHARD)
    with pytest.raises(ModelNotFoundError, match="Incomplete"):
        fastload.load("bare", options=model.options)
    whole = recorded(model, model.local, "other")
    (whole / ".cache/huggingface/download").mkdir(parents=True)
    (whole / ".cache/huggingface/download/x.incomplete").touch()
    with pytest.raises(ModelNotFoundError, match="not finished"):
        fastload.load("other", options=model.options)
