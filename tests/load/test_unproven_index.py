"""What says which tensors there are, or what they mean, is proven like the tensors: else none of it is proven."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

import fastload
from fastload import IntegrityError, Options
from stored_models import (
    COMMIT,
    git_sha1,
    model_files,
    write_cache,
    write_download_metadata,
    write_folder,
    write_tree,
)
from writing import INDEX_NAME, pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REPO = "org/name"
SHARD = "model-00001-of-00002.safetensors"
LACKING = json.dumps({"metadata": {}, "weight_map": {"layer.0": SHARD}}).encode()
LATER_NS = 100 * 10**9


def edit(path: Path, content: bytes = LACKING) -> None:
    """Another file by that name, which does not look like the one before."""
    later = path.stat().st_mtime_ns + LATER_NS
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(later, later))


def cached(root: Path) -> tuple[Path, Options]:
    """A real file where the link to a blob was."""
    snapshot = write_cache(root, REPO, COMMIT, model_files())
    edit(snapshot / INDEX_NAME)
    return snapshot, Options(local=str(root), tiers=("local",))


def downloaded(root: Path) -> tuple[Path, Options]:
    """A download without the note of its index."""
    folder = write_folder(root, model_files())
    write_download_metadata(folder, COMMIT, {n: c for n, c in model_files().items() if n != INDEX_NAME})
    edit(folder / INDEX_NAME)
    return folder, Options(tiers=("local",))


def recorded(root: Path) -> tuple[Path, Options]:
    """A folder that was recorded with another index."""
    folder = write_folder(root, model_files())
    fastload.verify(folder, record=True)
    edit(folder / INDEX_NAME)
    return folder, Options(tiers=("local",))


def added(root: Path) -> tuple[Path, Options]:
    """A folder that was recorded without an index, which came later."""
    folder = write_folder(root, {name: content for name, content in model_files().items() if name != INDEX_NAME})
    fastload.verify(folder, record=True)
    (folder / INDEX_NAME).write_bytes(LACKING)
    return folder, Options(tiers=("local",))


def unnamed(root: Path) -> tuple[Path, Options]:
    """A real file in a hub's cache, beside a manifest that does not name it."""
    snapshot, options = cached(root)
    assert fastload.verify(REPO, record=True, options=options).recorded
    leave_out(snapshot, INDEX_NAME)
    return snapshot, options


def leave_out(snapshot: Path, name: str) -> None:
    path = snapshot.parent.parent / ".fastload/manifests" / f"{COMMIT}.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"] = [file for file in manifest["files"] if file["path"] != name]
    path.write_text(json.dumps(manifest, separators=(",", ":"), sort_keys=True))


@pytest.fixture(params=[cached, downloaded, recorded, added, unnamed])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Options]:
    make: Callable[[Path], tuple[Path, Options]] = request.param
    return make(tmp_path / "model")


def test_what_an_unknown_index_leaves_out_is_not_called_proven(place: tuple[Path, Options]) -> None:
    folder, options = place
    for _ in range(2):
        report = fastload.load(folder, options=options).report
        assert report.evidence == "none"
        assert f"nothing is known of {INDEX_NAME}" in report.evidence_reason
    with pytest.raises(IntegrityError, match=f"nothing is known of {INDEX_NAME}"):
        fastload.load(folder, verify="require", options=options)
    with pytest.raises(IntegrityError, match=f"nothing is known of {INDEX_NAME}"):
        list(fastload.stream(folder, verify="require", options=options))
    with pytest.raises(IntegrityError):
        fastload.verify(folder, options=replace(options, verify="require"))


def test_verify_names_the_weakest_evidence_as_a_load_does(tmp_path: Path) -> None:
    snapshot = write_cache(tmp_path, REPO, COMMIT, model_files())
    options = Options(local=str(tmp_path), tiers=("local",))
    assert fastload.verify(REPO, record=True, options=options).recorded
    assert fastload.verify(REPO, options=options).evidence == "manifest"
    leave_out(snapshot, SHARD)
    evidence = fastload.load(REPO, options=options).report.evidence
    assert fastload.verify(REPO, options=options).evidence == evidence == "sha256"


def test_no_load_vouches_for_it(tmp_path: Path) -> None:
    snapshot, options = cached(tmp_path)
    for load in (fastload.load, fastload.stream):
        dict(load(REPO, options=options))
        with pytest.raises(IntegrityError):
            dict(load(REPO, verify="require", options=options))
    assert not (snapshot.parent.parent / ".fastload/manifests").exists()


def test_its_owner_may_and_it_is_said(tmp_path: Path) -> None:
    _, options = cached(tmp_path)
    assert fastload.verify(REPO, record=True, options=options).recorded
    report = fastload.load(REPO, verify="require", options=options).report
    assert report.evidence == "manifest (recorded)"
    assert fastload.verify(REPO, options=options).evidence == "manifest (recorded)"


def test_a_real_file_is_held_to_the_hubs_listing(tmp_path: Path) -> None:
    files = model_files()
    root = tmp_path / "mount"
    snapshot = write_cache(root, REPO, COMMIT, files)
    write_tree(snapshot, files)
    edit(snapshot / INDEX_NAME, files[INDEX_NAME])
    mount = Options(local=str(tmp_path / "local"), shared=str(root), tiers=("shared",))
    assert fastload.load(REPO, verify="require", options=mount).report.evidence == "sha256"
    edit(snapshot / INDEX_NAME, LACKING.ljust(len(files[INDEX_NAME])))
    with pytest.raises(IntegrityError, match=git_sha1(files[INDEX_NAME])):
        fastload.load(REPO, options=mount)
    with pytest.raises(IntegrityError, match=git_sha1(files[INDEX_NAME])):
        fastload.warm(REPO, options=mount)


def test_a_large_file_is_not_held_to_what_may_be_the_digest_of_its_pointer(tmp_path: Path) -> None:
    """Some listings say of a file in LFS no more than that."""
    files = {**model_files(), "tokenizer.json": b" " * ((10 << 20) + 1)}
    snapshot = write_cache(tmp_path / "local", REPO, COMMIT, files)
    write_tree(snapshot, {**files, "tokenizer.json": b"version https://git-lfs.github.com/spec/v1"})
    edit(snapshot / "tokenizer.json", files["tokenizer.json"])
    options = Options(local=str(tmp_path / "local"), tiers=("local",))
    found = {file.path: file for file in fastload.verify(snapshot, options=options).files}
    assert found["tokenizer.json"].evidence == "none"
    assert found["config.json"].evidence == "git-sha1"


def test_a_cast_rests_on_the_config_and_nothing_else_does(tmp_path: Path) -> None:
    """A config that says the weights are quantised keeps them from being cast."""
    files = {"model.safetensors": pack({"a": ("F32", [1], b"\0\0\x80?")}), "config.json": b"{}"}
    folder = write_folder(tmp_path, files)
    write_download_metadata(folder, COMMIT, {"model.safetensors": files["model.safetensors"]})
    assert fastload.load(folder, verify="require").report.evidence == "etag"
    report = fastload.load(folder, dtype=torch.bfloat16).report
    assert report.evidence == "none"
    assert "nothing is known of config.json" in report.evidence_reason
    with pytest.raises(IntegrityError, match=r"nothing is known of config\.json"):
        fastload.load(folder, dtype="BF16", verify="require")
    write_download_metadata(folder, COMMIT, files)
    assert fastload.load(folder, dtype="BF16", verify="require").report.evidence == "etag"
