"""Proof in a group: each rank proves what it reads, a bad block is its owner's to mend, and content is compared."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import fastload
import ranks
from fastload import Options
from fastload._store.keep.reports import read_reports
from fastload._store.layout import RepoLayout, repo_folder
from fastload._verify.digest import BLOCK_BYTES
from proven_models import PLACES, REPO, Model, flip
from rank_workers import Workers, workers_of
from ranks import fingerprints
from stored_models import COMMIT, OTHER_COMMIT, write_cache, write_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 3
GOLDEN = Path(__file__).parents[1] / "verify" / "golden" / "oms"


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with workers_of(SIZE) as made:
        yield made


@pytest.mark.parametrize("place", PLACES)
def test_each_block_is_proven_by_the_rank_that_reads_it(workers: Workers, model: Model, place: str) -> None:
    path = PLACES[place](model)
    loaded = workers.call(ranks.load, str(path))
    assert all(got == fingerprints(model.tensors) for got, _ in loaded)
    assert {report.evidence for _, report in loaded} == {place}


def test_a_file_with_a_digest_of_the_whole_is_one_ranks(workers: Workers, model: Model) -> None:
    """There are two files, so one of three ranks reads nothing; and the manifest that is left names both."""
    model.cached()
    loaded = workers.call(ranks.load_with, REPO, {"options": model.options})
    group = loaded[0][1].group
    assert group is not None
    assert sorted(each.bytes_read > 4096 for each in group.ranks) == [False, True, True]  # more than two headers
    again = fastload.load(REPO, options=model.options)
    assert again.report.evidence == "manifest"


@pytest.mark.parametrize("call", [ranks.load_with, ranks.stream])
@pytest.mark.parametrize("place", PLACES)
def test_a_bad_block_ends_the_load_on_all_ranks(workers: Workers, model: Model, place: str, call: object) -> None:
    """Its owner says which file, the others which rank."""
    path = PLACES[place](model)
    victim = path / "model-00002-of-00002.safetensors"
    flip(victim, victim.stat().st_size - 100)
    errors = workers.try_call(call, str(path), {"verify": "auto"})  # type: ignore[arg-type] # one of two functions
    own = [error for error in errors if isinstance(error, fastload.IntegrityError)]
    others = [error for error in errors if isinstance(error, fastload.GroupError)]
    assert len(own) == 1
    assert "model-00002-of-00002" in str(own[0])
    assert len(others) == SIZE - 1
    assert all("IntegrityError" in str(error) and "model-00002" in str(error) for error in others)


@pytest.mark.parametrize("place", ["manifest", "manifest (recorded)"])
@pytest.mark.parametrize("shard", [1, 2])
def test_a_block_is_proven_before_it_is_sent(workers: Workers, model: Model, place: str, shard: int) -> None:
    """Nothing of a bad one ever is in another rank's memory: there is what is right, or what was there before."""
    victim = PLACES[place](model) / f"model-0000{shard}-of-00002.safetensors"
    good = victim.read_bytes()
    # Not in the first block, which is proven with the header; and so that what it becomes is not zero.
    at = next(at for at in range(BLOCK_BYTES + 9, len(good)) if good[at] & ~(1 << at % 8))
    flip(victim, at)
    sizes = {name: len(tensor) for name, tensor in model.tensors.items()}
    looked = [seen for seen in workers.call(ranks.fill_and_look, str(victim.parent), sizes) if seen is not None]
    assert len(looked) == SIZE - 1
    for seen in looked:
        for name, content in seen.items():
            found = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            assert bool(((found == 0) | (found == model.tensors[name])).all()), name


def test_the_report_of_a_group_is_kept_once(workers: Workers, model: Model) -> None:
    """By the first rank of a machine, which would otherwise race with the others."""
    model.warmed()
    workers.call(ranks.load_with, REPO, {"options": model.options})
    (report,) = read_reports(RepoLayout(repo_folder(str(model.local), REPO)), COMMIT)
    assert len(report["group"]["ranks"]) == SIZE


def test_a_bad_block_is_mended_by_its_owner(workers: Workers, model: Model) -> None:
    path = model.warmed() / "model-00001-of-00002.safetensors"
    flip(path, 3 << 20)
    loaded = workers.call(ranks.load_with, REPO, {"options": model.options})
    assert all(got == fingerprints(model.tensors) for got, _ in loaded)
    assert sum(report.blocks_repaired for _, report in loaded) >= 1
    read = [report.bytes_read for _, report in loaded]
    assert [report.bytes_by_tier["local"] for _, report in loaded] == read
    assert [rank.bytes_read for rank in loaded[0][1].group.ranks] == read, "what mending read is in both"
    again = workers.call(ranks.load_with, REPO, {"options": model.options})
    whole = path.stat().st_size  # of the file: the bad block past the page cache, and all others for the copy
    assert sum(read) >= sum(report.bytes_read for _, report in again) + whole
    assert path.read_bytes() == model.files[path.name]


def test_another_revision_on_one_rank_is_noticed(workers: Workers, model: Model) -> None:
    write_cache(model.local, REPO, COMMIT, model.files)
    write_cache(model.local, REPO, OTHER_COMMIT, model.files, ref="v2")
    keywords: list[dict[str, object]] = [{"options": model.options} for _ in range(SIZE)]
    keywords[1]["revision"] = "v2"
    errors = workers.try_call(ranks.load_by_rank, REPO, keywords)
    assert {str(error) for error in errors} == {str(errors[0])}
    assert "the ranks disagree on revision: rank 0 has None, rank 1 'v2'" in str(errors[0])


def test_all_must_hold_to_one_key_wherever_it_lies(workers: Workers, tmp_path: Path) -> None:
    """Each hands out what others have read: with another key, or none, that is not proven by its own."""
    pytest.importorskip("cryptography", reason="signatures need cryptography")
    path = tmp_path / "model"
    shutil.copytree(GOLDEN / "model", path)
    shutil.copy(GOLDEN / "files-sha256-p256.sig", path / "model.sig")
    keys = [shutil.copy(GOLDEN / "p256.pub.pem", tmp_path / f"{rank}.pem") for rank in range(SIZE)]
    own: list[dict[str, object]] = [{"options": Options(signature_key=str(key))} for key in keys]
    assert {report.evidence for _, report in workers.call(ranks.load_by_rank, str(path), own)} == {"signature"}
    shutil.copy(GOLDEN / "p384.pub.pem", keys[2])
    for options in (own, [*own[:2], {}]):
        errors = workers.try_call(ranks.load_by_rank, str(path), options)
        assert {str(error) for error in errors} == {str(errors[0])}
        assert "disagree on the key of signature_key" in str(errors[0])


def test_other_weights_of_the_same_shapes_on_one_rank_are_noticed(workers: Workers, tmp_path: Path) -> None:
    """As where a fine-tuned model lies on one machine, and the one that it was made of on another."""
    paths = []
    for name, seed in (("base", 1), ("tuned", 2)):
        (tmp_path / name).mkdir()
        paths.append(str(Model(tmp_path / name, seed).recorded()))
    errors = workers.try_call(ranks.load_path_of_rank, [paths[0], paths[1], paths[0]])
    assert all(isinstance(error, fastload.GroupError) and "different weights" in str(error) for error in errors)


def test_the_commit_is_resolved_once(workers: Workers, model: Model, tmp_path: Path) -> None:
    """On rank 2's machine the branch means another commit by now; it loads what rank 0 found."""
    write_cache(model.local, REPO, COMMIT, model.files)
    elsewhere = tmp_path / "elsewhere"
    write_cache(elsewhere, REPO, COMMIT, model.files)
    write_cache(elsewhere, REPO, OTHER_COMMIT, {**model.files, "config.json": b'{"newer": 1}'})
    options = [model.options, model.options, replace(model.options, local=str(elsewhere))]
    loaded = workers.call(ranks.load_by_rank, REPO, [{"options": each} for each in options])
    assert [report.commit for _, report in loaded] == [COMMIT] * SIZE
    assert loaded[2][1].commit_learnt == "rank 0"


def test_what_comes_from_a_mount_is_kept_once(workers: Workers, model: Model) -> None:
    """One rank keeps the copy, of what it reads and of what the others send it."""
    write_cache(model.shared, REPO, COMMIT, model.files)
    options = replace(model.options, write_through="on")
    loaded = workers.call(ranks.load_with, REPO, {"options": options})
    assert all(got == fingerprints(model.tensors) for got, _ in loaded)
    local = Options(local=str(model.local), tiers=("local",))
    kept = fastload.load(REPO, options=local, verify="require")
    assert kept.report.tier == "local"
    assert fingerprints(kept) == fingerprints(model.tensors)


def on_unlike_tiers(model: Model, tmp_path: Path) -> list[dict[str, object]]:
    """Rank 0 has a manifest; the others have the model from where nothing is known of it, and where it is damaged."""
    known, bare = tmp_path / "known", tmp_path / "bare"
    fastload.verify(write_folder(known / "mymodel", model.files), record=True)
    flip(write_folder(bare / "mymodel", model.files) / "model-00002-of-00002.safetensors", 5 << 20)
    common = Options(local=str(model.local), tiers=("local", "shared"), write_through="on")
    places = [known, *[bare] * (SIZE - 1)]
    return [{"options": replace(common, shared=str(place))} for place in places]


def test_what_one_rank_reads_unproven_is_unproven_on_all(workers: Workers, model: Model, tmp_path: Path) -> None:
    """Each proves what it reads by what its own tier knows, and hands it to the others."""
    loaded = workers.call(ranks.load_by_rank, "mymodel", on_unlike_tiers(model, tmp_path))
    assert [got == fingerprints(model.tensors) for got, _ in loaded] == [False] * SIZE
    assert [report.evidence for _, report in loaded] == ["none"] * SIZE
    assert "rank 1: nothing is known of the bytes" in loaded[0][1].evidence_reason
    with pytest.raises(fastload.ModelNotFoundError):  # it was not kept as if it were proven
        fastload.resolve("mymodel", options=Options(local=str(model.local), tiers=("local",)))


def test_what_one_rank_would_read_unproven_is_refused_where_proof_is_required(
    workers: Workers, model: Model, tmp_path: Path
) -> None:
    keywords = [{**each, "verify": "require"} for each in on_unlike_tiers(model, tmp_path)]
    first, *others = workers.try_call(ranks.load_by_rank, "mymodel", keywords)
    assert isinstance(first, fastload.GroupError)
    assert "nothing is known of the bytes" in str(first)
    assert any(isinstance(error, fastload.IntegrityError) for error in others)


def test_what_nothing_proves_is_kept_as_one_rank_alone_would(workers: Workers, model: Model, tmp_path: Path) -> None:
    write_folder(model.shared / "mymodel", model.files)
    options = replace(model.options, write_through="on")
    workers.call(ranks.load_with, "mymodel", {"options": options})
    assert fastload.resolve("mymodel", options=Options(local=str(model.local), tiers=("local",))).tier == "local"


def test_a_stream_that_must_be_proven(workers: Workers, model: Model) -> None:
    write_folder(model.local.parent / "plain", model.files)
    model.cached()
    for _, got in workers.call(ranks.stream, REPO, {"options": model.options, "verify": "require"}):
        assert got == fingerprints(model.tensors)
