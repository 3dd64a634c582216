"""A link that leads to another blob, while the right one is here: it is linked again, and nothing is fetched."""

from __future__ import annotations

import hashlib
import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import IntegrityError, NotWritableError, Options
from fastload._store.keep.mark import find_damaged
from fastload._store.layout import RepoLayout
from fastload.cli import main
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from signing import bundle_of, key_of, pem_of, resource, statement_of
from stored_models import COMMIT, blob_name, write_cache, write_folder, write_tree
from writing import INDEX_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from fastload import Verification

SHARD = "model-00001-of-00002.safetensors"
OTHER_SHARD = "model-00002-of-00002.safetensors"


def alone(model: Model) -> Options:
    """Nobody else is asked."""
    return Options(local=str(model.local), tiers=("local",))


def swap(folder: Path, names: tuple[str, str] = (SHARD, OTHER_SHARD)) -> None:
    """Let each of two links lead to the other one's blob."""
    one, two = (folder / name for name in names)
    aside = one.rename(folder / "aside")
    two.rename(one)
    aside.rename(two)


def blobs(folder: Path) -> dict[str, tuple[int, int]]:
    """The inode and the mtime of each."""
    there = (folder.parent.parent / "blobs").iterdir()
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in there}


def check_relinked(model: Model, folder: Path, found: Verification, names: tuple[str, ...]) -> None:
    assert {finding.path for finding in found.findings if finding.repaired} == set(names)
    assert [file.path for file in found.files if file.relinked] == sorted(names)
    assert found.blocks_repaired == 0
    assert set(found.bytes_by_tier) == {found.tier}, "nothing was fetched"
    for name, content in model.files.items():
        assert (folder / name).is_symlink()
        assert (folder / name).resolve().name == blob_name(name, content)
        assert (folder / name).read_bytes() == content
    assert not os.listdir(folder.parent.parent / ".fastload/staging")


@pytest.mark.parametrize("names", [(SHARD, OTHER_SHARD), (SHARD, "config.json")], ids=["of-one-size", "of-two-sizes"])
def test_links_that_changed_places_lead_again_where_they_should(model: Model, names: tuple[str, str]) -> None:
    folder = model.warmed()
    before = blobs(folder)
    swap(folder, names)
    found = fastload.verify(REPO, repair=True, options=model.options)
    check_relinked(model, folder, found, names)
    assert blobs(folder) == before, "no blob was written"
    assert fastload.verify(REPO, options=model.options).findings == ()
    assert_same(fastload.load(REPO, options=alone(model), verify="require"), model.tensors)


@pytest.mark.parametrize("how", ["verify", "load"])
@pytest.mark.parametrize("is_swapped", [False, True], ids=["both-lead-there", "swapped"])
def test_a_blob_that_git_names_is_not_written_with_the_bytes_of_a_shard(
    model: Model, how: str, *, is_swapped: bool
) -> None:
    """They are of one length; a shard is known by its sha256, and what is another file's by git's sha1."""
    other = "tokenizer.json"
    model.files[other] = random.Random(2).randbytes(len(model.files[SHARD]))  # noqa: S311 - not for secrets
    folder = model.warmed()
    before = blobs(folder)
    if is_swapped:
        swap(folder, (SHARD, other))
    else:
        (folder / SHARD).unlink()
        (folder / SHARD).symlink_to(os.readlink(folder / other))
    if how == "verify":
        fastload.verify(REPO, repair=True, options=model.options)
    else:
        assert_same(fastload.load(REPO, options=model.options), model.tensors)
        assert find_damaged(RepoLayout(str(folder.parent.parent)), COMMIT) == (SHARD,)
        fastload.warm(REPO, options=model.options)
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    assert blobs(folder) == before, "no blob was written"


@pytest.mark.parametrize("by_path", [False, True], ids=["name", "path"])
def test_nobody_else_needs_to_have_the_model(model: Model, by_path: bool) -> None:  # noqa: FBT001 - a case
    folder = model.warmed()
    swap(folder)
    found = fastload.verify(folder if by_path else REPO, repair=True, options=alone(model))
    check_relinked(model, folder, found, (SHARD, OTHER_SHARD))


def test_what_the_hubs_listing_says_is_linked_again(model: Model) -> None:
    folder = model.cached()
    write_tree(folder, model.files)
    fastload.warm(REPO, options=model.options)  # only for the folder in which links are made
    os.unlink(folder.parent.parent / f".fastload/manifests/{COMMIT}.json")
    write_cache(model.shared, REPO, COMMIT, model.files)
    swap(folder)
    found = fastload.verify(REPO, repair=True, options=model.options)
    check_relinked(model, folder, found, (SHARD, OTHER_SHARD))


def test_a_link_that_is_lost_is_made_again_and_nothing_is_called_brought(model: Model) -> None:
    folder = model.warmed()
    (folder / SHARD).unlink()
    check_relinked(model, folder, fastload.verify(REPO, repair=True, options=model.options), (SHARD,))


def test_a_blob_is_proven_before_it_is_linked_and_its_bad_block_alone_is_fetched(model: Model) -> None:
    folder = model.warmed()
    flip(folder / SHARD, 9)  # in the first of two blocks
    swap(folder)
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert [file.path for file in found.files if file.relinked] == [OTHER_SHARD]
    assert found.bytes_by_tier[f"shared:{model.shared}"] == 4 * MIB
    assert found.blocks_repaired == 1
    assert all((folder / name).read_bytes() == content for name, content in model.files.items())


def test_a_blob_that_is_wrong_and_that_nobody_has_right_is_not_linked(model: Model) -> None:
    folder = model.warmed()
    flip(folder / SHARD, 9)
    swap(folder)
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(REPO, repair=True, options=alone(model))
    assert [(finding.path, finding.repaired) for finding in caught.value.findings] == [(SHARD, False)]
    assert (folder / SHARD).resolve() == (folder / OTHER_SHARD).resolve(), "one stays as it was, the other is right"


def test_a_blob_that_is_a_link_out_of_the_cache_is_not_what_a_file_is_linked_to(model: Model, tmp_path: Path) -> None:
    folder = model.warmed()
    outside = (folder / SHARD).resolve().rename(tmp_path / "outside")
    blob = folder.parent.parent / "blobs" / blob_name(SHARD, model.files[SHARD])
    blob.symlink_to(outside)
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(os.readlink(folder / OTHER_SHARD))
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert not any(file.relinked for file in found.files)
    assert found.bytes_by_tier[f"shared:{model.shared}"] == len(model.files[SHARD])
    assert not blob.is_symlink()
    assert outside.read_bytes() == model.files[SHARD]


def test_a_link_that_may_not_be_written_is_not_called_repaired(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model.warmed()
    swap(folder)
    real = os.replace

    def refuse(made: str, target: str) -> None:
        if os.path.dirname(target) == str(folder):
            raise PermissionError(13, "Permission denied")
        real(made, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(NotWritableError) as caught:
        fastload.verify(REPO, repair=True, options=model.options)
    assert [finding.repaired for finding in caught.value.findings] == [False, False]
    assert not os.listdir(folder.parent.parent / ".fastload/staging")


def test_a_load_that_mends_links_fetches_nothing(model: Model) -> None:
    folder = model.warmed()
    swap(folder, (SHARD, INDEX_NAME))
    weights = fastload.load(REPO, options=model.options)
    assert_same(weights, model.tensors)
    assert set(weights.report.bytes_by_tier) == {"local"}
    assert all((folder / name).resolve().name == blob_name(name, model.files[name]) for name in (SHARD, INDEX_NAME))


@pytest.fixture
def said(model: Model, capsys: pytest.CaptureFixture[str]) -> str:
    swap(model.warmed())
    tiers = ["--local", str(model.local), "--shared", str(model.shared), "--tiers", "local,shared"]
    assert main(["verify", REPO, "--repair", *tiers]) == 0
    return capsys.readouterr().out


def test_the_command_says_what_was_done(said: str) -> None:
    rows = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert rows["config.json"].endswith("ok")
    assert said.count("linked again") == 2
    assert "brought again" not in said


def read_links(folder: Path) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in folder.iterdir()}


@pytest.mark.parametrize("loses", ["places", "link", "blob"])
def test_a_link_is_what_the_hubs_tools_write_wherever_the_tiers_path_leads(
    model: Model, tmp_path: Path, loses: str
) -> None:
    """A link that climbs out of the cache dangles once that is moved, or mounted elsewhere."""
    disk = tmp_path / "real" / "disk"
    disk.mkdir(parents=True)
    model.local.symlink_to(disk)
    folder = model.warmed()
    before = read_links(folder)
    if loses == "places":
        swap(folder)
    else:
        if loses == "blob":
            (folder / SHARD).resolve().unlink()
        (folder / SHARD).unlink()
    fastload.verify(REPO, repair=True, options=model.options)
    assert read_links(folder) == before
    assert before[SHARD] == f"../../blobs/{blob_name(SHARD, model.files[SHARD])}"
    model.local.unlink()
    moved = disk.rename(tmp_path / "moved")
    options = Options(local=str(moved), tiers=("local",), verify="require")
    assert_same(fastload.load(REPO, options=options), model.tensors)


def test_a_link_below_a_folder_that_is_a_link_leads_to_the_blob_all_the_same(model: Model) -> None:
    """No tool of the hub's makes such a folder; there the usual link would lead nowhere."""
    model.files |= {"part/notes.json": b"[1]", "part/others.json": b"[2]"}
    folder = model.warmed()
    inside = (folder / "part").rename(folder.parent.parent / "part")
    (folder / "part").symlink_to("../../part")
    for path in inside.iterdir():
        path.unlink()
        path.symlink_to(f"../blobs/{blob_name('others.json', b'[2]')}")
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert [file.path for file in found.files if file.relinked] == ["part/notes.json"]
    assert os.readlink(inside / "notes.json") == f"../blobs/{blob_name('notes.json', b'[1]')}"


@pytest.fixture(params=["wrong", "damaged"])
def stranger(model: Model, request: pytest.FixtureRequest) -> Path:
    """Another model's file on the same tier, as long as a shard: all of it is other, or a single bit."""
    path = model.local / "another" / "model.safetensors"
    path.parent.mkdir(parents=True)
    content = model.files[SHARD]
    path.write_bytes(bytes(len(content)) if request.param == "wrong" else content[:-1] + bytes([content[-1] ^ 1]))
    return path


def lead_to(stranger: Path, folder: Path) -> bytes:
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(os.path.relpath(stranger, folder))
    return stranger.read_bytes()


@pytest.mark.parametrize("has_blob", [True, False])
def test_nothing_is_written_to_what_is_no_blob_of_the_model(model: Model, stranger: Path, *, has_blob: bool) -> None:
    folder = model.warmed()
    if not has_blob:
        (folder / SHARD).resolve().unlink()
    before = lead_to(stranger, folder)
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert [file.path for file in found.files if file.relinked] == [SHARD] * has_blob
    assert found.blocks_repaired == 2 * (not has_blob)
    assert {(finding.path, finding.repaired) for finding in found.findings} == {(SHARD, True)}
    assert stranger.read_bytes() == before
    assert (folder / SHARD).resolve().name == blob_name(SHARD, model.files[SHARD])
    assert (folder / SHARD).read_bytes() == model.files[SHARD]


def test_nor_does_a_load_that_mends_what_it_reads(model: Model, stranger: Path) -> None:
    before = lead_to(stranger, model.warmed())
    assert_same(fastload.load(REPO, options=model.options), model.tensors)
    assert stranger.read_bytes() == before


def test_nor_does_a_repair_by_a_listing(model: Model, stranger: Path) -> None:
    folder = model.cached()
    write_tree(folder, model.files)
    write_cache(model.shared, REPO, COMMIT, model.files)
    before = lead_to(stranger, folder)
    fastload.verify(REPO, repair=True, options=model.options)
    assert stranger.read_bytes() == before
    assert (folder / SHARD).read_bytes() == model.files[SHARD]


@pytest.mark.parametrize("algorithm", ["sha256", "blake2b"])
@pytest.mark.parametrize("names", [(SHARD, OTHER_SHARD), (SHARD, "config.json")], ids=["of-one-size", "of-two-sizes"])
def test_no_blob_gets_bytes_that_are_not_called_so_though_they_were_signed(
    model: Model, tmp_path: Path, algorithm: str, names: tuple[str, str]
) -> None:
    """A signature need not say what a blob is called: of which digest its name is, or of none."""
    pytest.importorskip("cryptography")
    entries = [
        resource(name, algorithm, hashlib.new(algorithm, content).hexdigest())
        for name, content in sorted(model.files.items())
    ]
    model.files["model.sig"] = bundle_of(statement_of(entries, hash_type=algorithm))
    (tmp_path / "key.pem").write_bytes(pem_of(key_of()))
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    swap(folder, names)
    options = replace(model.options, signature_key=str(tmp_path / "key.pem"))
    found = fastload.verify(folder, repair=True, options=options)
    assert {finding.path for finding in found.findings if finding.repaired} == set(names)
    for name, content in model.files.items():
        assert (folder / name).read_bytes() == content
        assert (folder.parent.parent / "blobs" / blob_name(name, content)).read_bytes() == content


def test_in_a_plain_folder_a_file_takes_the_place_of_a_link_to_its_neighbour(model: Model) -> None:
    folder = write_folder(model.local / "mymodel", model.files)
    write_folder(model.shared / "mymodel", model.files)
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))  # so that the link does not look as if it had been written to
    fastload.verify("mymodel", record=True, options=alone(model))
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(OTHER_SHARD)
    fastload.verify("mymodel", repair=True, options=model.options)
    assert not (folder / SHARD).is_symlink()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == model.files
    assert fastload.verify("mymodel", options=model.options).findings == ()
