"""``fastload verify --repair``: by block where blocks are known, by file where only a digest of the whole is."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import FormatError, IntegrityError, Options, StoreError
from fastload._fetch.mend import sources
from fastload._verify.manifest import dump_manifest, parse_manifest
from hub_faults import Stall
from hub_server import HubServer, Repo
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from signing import bundle_of, key_of, pem_of, resource, statement_of
from stored_models import COMMIT, write_cache, write_download_metadata, write_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARD = "model-00001-of-00002.safetensors"
OTHER_SHARD = "model-00002-of-00002.safetensors"
BLOCK = 4 * MIB


class Signed(Model):
    """The model with a signature by the test key."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import hashlib

        entries = [resource(name, digest=hashlib.sha256(self.files[name]).hexdigest()) for name in sorted(self.files)]
        self.files["model.sig"] = bundle_of(statement_of(entries))
        self.key = folder / "key.pem"
        self.key.write_bytes(pem_of(key_of()))

    @property
    def options(self) -> Options:
        return replace(super().options, signature_key=str(self.key))


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    pytest.importorskip("cryptography", reason="signatures need cryptography")
    return Signed(tmp_path)


@pytest.fixture
def hub(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({REPO: Repo(model.files)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def damage(path: Path, how: str) -> None:
    if how == "flipped":
        flip(path, 5 * MIB)
    elif how == "cut":
        os.truncate(path, 3 * MIB)
    elif how == "its blob lost":
        path.resolve().unlink()
    else:
        path.unlink()


HOW = ["flipped", "cut", "its blob lost", "lost"]


@pytest.mark.parametrize("how", HOW)
def test_what_the_manifest_says_is_mended_from_another_tier(model: Model, how: str) -> None:
    folder = model.warmed()
    damage(folder / SHARD, how)
    check_repair(model, folder)


@pytest.mark.parametrize("how", ["flipped", "cut"])  # of what is lost, nothing says that it should be there
def test_what_the_name_of_a_blob_says_is_mended_from_another_tier(model: Model, how: str) -> None:
    folder = model.cached()
    write_cache(model.shared, REPO, COMMIT, model.files)
    damage(folder / SHARD, how)
    check_repair(model, folder)


def check_repair(model: Model, folder: Path) -> None:
    found = fastload.verify(folder, repair=True, options=model.options)
    assert [(finding.path, finding.repaired) for finding in found.findings] == [(SHARD, True)]
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    assert (folder / SHARD).is_symlink()
    assert fastload.verify(REPO, options=model.options).findings == ()
    assert not os.listdir(folder.parent.parent / ".fastload/staging")
    assert_same(fastload.load(REPO, options=model.options), model.tensors)


@pytest.mark.parametrize("how", HOW)
def test_what_was_signed_is_mended_by_its_signature(signed: Signed, how: str) -> None:
    folder = signed.warmed()
    damage(folder / SHARD, how)
    found = fastload.verify(REPO, repair=True, options=signed.options)
    assert (found.evidence, [(f.path, f.repaired) for f in found.findings]) == ("signature", [(SHARD, True)])
    assert (folder / SHARD).read_bytes() == signed.files[SHARD]
    assert fastload.load(REPO, options=signed.options).report.evidence == "signature"


def test_links_that_changed_places_are_mended_by_the_signature(signed: Signed) -> None:
    folder = signed.warmed()
    one, two = folder / SHARD, folder / OTHER_SHARD
    blobs = one.resolve(), two.resolve()
    aside = one.rename(folder / "aside")
    two.rename(one)
    aside.rename(two)
    found = fastload.verify(REPO, repair=True, options=signed.options)
    assert [finding.repaired for finding in found.findings] == [True, True]
    assert (one.resolve(), two.resolve()) == blobs
    assert [blob.read_bytes() for blob in blobs] == [signed.files[SHARD], signed.files[OTHER_SHARD]]


def test_what_is_offered_in_its_place_is_held_to_the_signature(signed: Signed) -> None:
    """Both tiers have the same wrong bytes, and manifests that call them right: nobody signed them."""
    folder = signed.warmed()
    evil = bytearray(signed.files[SHARD])
    evil[5 * MIB] ^= 1
    signed.files[SHARD] = bytes(evil)
    shutil.rmtree(signed.shared)
    write_cache(signed.shared, REPO, COMMIT, signed.files)
    mount = signed.shared / "models--org--name/snapshots" / COMMIT
    assert fastload.verify(mount, record=True).recorded
    flip(folder / SHARD, 9)
    before = (folder / SHARD).read_bytes()
    with pytest.raises(IntegrityError, match="sha256"):
        fastload.verify(REPO, repair=True, options=signed.options)
    assert (folder / SHARD).read_bytes() == before


def test_a_signed_plain_folder_is_mended_from_the_folder_of_its_name(signed: Signed, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "here/bare", signed.files)
    write_folder(tmp_path / "mount/bare", signed.files)
    flip(folder / SHARD, 5 * MIB)
    options = replace(signed.options, shared=str(tmp_path / "mount"))
    assert fastload.verify(folder, repair=True, options=options).findings[0].repaired
    assert (folder / SHARD).read_bytes() == signed.files[SHARD]


@pytest.mark.usefixtures("hub")
def test_a_load_and_a_repair_fetch_the_bad_blocks_and_no_more(model: Model, hub: HubServer) -> None:
    options = Options(local=str(model.local))
    folder = Path(fastload.warm(REPO, options=options).path)
    for run in (
        lambda: fastload.load(REPO, options=options),
        lambda: fastload.verify(REPO, repair=True, options=options),
    ):
        for name in (SHARD, OTHER_SHARD):
            flip(folder / name, BLOCK + 1)
        before = hub.served_bytes("/cdn/")
        run()
        # The second blocks are a bit over 1 MiB: two blocks are fetched, and one more of each file is allowed.
        assert 0 < hub.served_bytes("/cdn/") - before <= 2 * BLOCK
        assert [(folder / name).read_bytes() for name in (SHARD, OTHER_SHARD)] == [
            model.files[name] for name in (SHARD, OTHER_SHARD)
        ]


@pytest.mark.parametrize("how", ["verify", "load"])
def test_a_block_of_a_file_that_is_wrong_elsewhere_mends_the_stored_one(model: Model, how: str) -> None:
    """Whose copy of the file is another one as a whole: it was called repaired, and stayed as it was."""
    shard = model.warmed() / SHARD
    shutil.rmtree(model.shared)
    other = bytearray(model.files[SHARD])
    other[-1] ^= 1
    write_cache(model.shared, REPO, COMMIT, {**model.files, SHARD: bytes(other)})
    flip(shard, 2 * MIB)
    if how == "verify":
        found = fastload.verify(REPO, repair=True, options=model.options)
        assert ([each.repaired for each in found.findings], found.blocks_repaired) == ([True], 1)
    else:
        assert_same(fastload.load(REPO, options=model.options), model.tensors)
    assert shard.read_bytes() == model.files[SHARD]
    assert fastload.verify(REPO, options=model.options).is_right


def test_of_what_was_signed_the_bad_blocks_are_fetched_where_a_manifest_hints_at_them(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer({REPO: Repo(signed.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        options = Options(local=str(signed.local), signature_key=str(signed.key))
        folder = Path(fastload.warm(REPO, options=options).path)
        flip(folder / SHARD, 9)
        before = hub.served_bytes("/cdn/")
        assert fastload.verify(REPO, repair=True, options=options).findings[0].repaired
        assert hub.served_bytes("/cdn/") - before == BLOCK < len(signed.files[SHARD])
        assert (folder / SHARD).read_bytes() == signed.files[SHARD]
        # A manifest that lies, as one that came with the weights may: then all of the file is fetched.
        (path,) = (folder.parent.parent / ".fastload/manifests").iterdir()
        lie = parse_manifest(path.read_bytes(), path=str(path))
        flip(folder / SHARD, 9)
        from fastload._verify.digest import block_digest

        damaged = (folder / SHARD).read_bytes()
        blocks = tuple(block_digest(damaged[at : at + BLOCK]) for at in range(0, len(damaged), BLOCK))
        files = tuple(replace(f, blocks=blocks) if f.path == SHARD else f for f in lie.files)
        path.write_bytes(dump_manifest(replace(lie, files=files)))
        assert fastload.verify(REPO, repair=True, options=options).findings[0].repaired
        assert (folder / SHARD).read_bytes() == signed.files[SHARD]


def test_not_a_byte_is_fetched_of_what_is_known_to_be_something_else(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**model.files, SHARD: model.files[OTHER_SHARD]}
    repo = Repo(other)
    folder = write_cache(model.local, REPO, repo.commit, model.files)
    with HubServer({REPO: repo}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        flip(folder / SHARD, 5 * MIB)
        with pytest.raises(IntegrityError):
            fastload.verify(REPO, repair=True, options=Options(local=str(model.local)))
        assert hub.served_bytes("/cdn/") == 0


def test_a_load_leaves_a_shared_tier_as_it_is_and_delivers_what_is_right(model: Model) -> None:
    snapshot = model.warmed()
    options = replace(model.options, shared=(str(model.shared),), tiers="shared")
    mount = model.shared / "models--org--name/snapshots" / COMMIT
    assert fastload.verify(mount, record=True, options=options).recorded
    flip(mount / SHARD, 5 * MIB)
    damaged, inode = (mount / SHARD).read_bytes(), (mount / SHARD).stat().st_ino
    more = model.local.parent / "more"
    shutil.copytree(snapshot.parent.parent.parent, more, symlinks=True)
    options = replace(options, shared=(str(model.shared), str(more)))
    weights = fastload.load(REPO, options=options)
    assert_same(weights, model.tensors)
    assert (weights.report.tier, weights.report.blocks_repaired) == (f"shared:{model.shared}", 1)
    assert ((mount / SHARD).read_bytes(), (mount / SHARD).stat().st_ino) == (damaged, inode)


@pytest.fixture
def downloads(model: Model, hub: HubServer) -> Path:
    """What ``hf download --local-dir`` has left on a mount, under the name by which the hub has it."""
    folder = write_folder(model.shared / REPO, model.files)
    write_download_metadata(folder, hub.repos[REPO].commit, model.files)
    return folder


@pytest.mark.parametrize("name", [REPO, f"{REPO}@{{commit}}"])
@pytest.mark.parametrize("place", ["hub", "local"])
def test_a_block_of_a_download_on_a_mount_comes_from_where_its_commit_is(
    model: Model, hub: HubServer, downloads: Path, name: str, place: str
) -> None:
    fastload.verify(downloads, record=True)
    flip(downloads / SHARD, BLOCK + 1)
    damaged, commit = (downloads / SHARD).read_bytes(), hub.repos[REPO].commit
    if place == "local":
        write_cache(model.local, REPO, commit, model.files, ref=None)
        (model.local / f"models--org--name/snapshots/{commit}" / OTHER_SHARD).unlink()  # so that the mount serves
    tiers = ("shared", "hub") if place == "hub" else ("local", "shared")
    options = replace(model.options, tiers=tiers, write_through="off")
    weights = fastload.load(name.format(commit=commit), options=options)
    assert_same(weights, model.tensors)
    assert (weights.report.tier, weights.report.blocks_repaired) == (f"shared:{model.shared}", 1)
    assert hub.served_bytes("/cdn/") <= BLOCK
    assert (downloads / SHARD).read_bytes() == damaged


@pytest.mark.parametrize("record", [False, True])
def test_a_download_on_a_mount_is_repaired_from_the_hub(
    model: Model,
    hub: HubServer,
    downloads: Path,
    record: bool,  # noqa: FBT001 - a case
) -> None:
    if record:
        fastload.verify(downloads, record=True)
    flip(downloads / SHARD, BLOCK + 1)
    options = replace(model.options, tiers=("shared", "hub"))
    found = fastload.verify(REPO, repair=True, options=options)
    assert [(finding.path, finding.repaired) for finding in found.findings] == [(SHARD, True)]
    assert (downloads / SHARD).read_bytes() == model.files[SHARD]
    assert 0 < hub.served_bytes("/cdn/") <= (BLOCK if record else len(model.files[SHARD]))


def test_a_download_of_several_commits_is_of_none_that_the_hub_has(
    model: Model, hub: HubServer, downloads: Path
) -> None:
    write_download_metadata(downloads, COMMIT, {"config.json": model.files["config.json"]})
    flip(downloads / SHARD, BLOCK + 1)
    with pytest.raises(IntegrityError):
        fastload.verify(REPO, repair=True, options=replace(model.options, tiers=("shared", "hub")))
    assert hub.requests == []


@pytest.mark.parametrize("part", ["", SHARD, "model.safetensors.index.json"])
def test_a_path_into_the_local_tier_is_mended_as_its_name_is(model: Model, part: str) -> None:
    folder = model.warmed()
    flip(folder / SHARD, 5 * MIB)
    weights = fastload.load(folder / part, options=model.options)
    expected = {name: tensor for name, tensor in model.tensors.items() if part != SHARD or name in weights}
    assert_same(weights, expected)
    assert (weights.report.tier, weights.report.blocks_repaired) == ("path", 1)
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    assert fastload.load(folder / part, options=model.options).report.blocks_repaired == 0


@pytest.mark.parametrize("place", ["shared", "elsewhere"])
def test_a_path_into_another_cache_stays_as_it_is_and_what_is_delivered_is_right(
    model: Model, tmp_path: Path, place: str
) -> None:
    model.warmed()
    folder = write_cache(tmp_path / place / "more", REPO, COMMIT, model.files)
    assert fastload.verify(folder, record=True).recorded
    flip(folder / SHARD, 5 * MIB)
    damaged = (folder / SHARD).read_bytes()
    options = replace(model.options, shared=str(folder.parents[2])) if place == "shared" else model.options
    weights = fastload.load(folder, options=options)
    assert_same(weights, model.tensors)
    assert weights.report.blocks_repaired == 1
    assert (folder / SHARD).read_bytes() == damaged


def test_a_link_to_a_snapshot_is_proven_and_mended_as_what_it_leads_to(model: Model, tmp_path: Path) -> None:
    """As ``warm --link`` makes it, so that those who serve need not know of commits."""
    folder, link = model.warmed(), tmp_path / "link"
    link.symlink_to(folder)
    flip(folder / SHARD, 5 * MIB)
    weights = fastload.load(link, options=model.options)
    assert_same(weights, model.tensors)
    assert (weights.report.evidence, weights.report.blocks_repaired) == ("manifest", 1)
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    assert fastload.load(link / SHARD, options=model.options).report.evidence == "manifest"
    found = fastload.verify(link, options=model.options)
    assert (found.evidence, found.path) == ("manifest", str(folder))


def test_a_path_needs_no_hub_that_can_be_asked(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model.warmed()
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert_same(fastload.load(folder, options=Options(local=str(model.local))), model.tensors)


def test_of_a_path_that_nobody_has_better_the_error_names_it_and_it_is_marked(model: Model) -> None:
    folder = model.warmed()
    shutil.rmtree(model.shared)
    flip(folder / SHARD, 5 * MIB)
    with pytest.raises(IntegrityError) as caught:
        fastload.load(folder, options=model.options)
    assert caught.value.path == str(folder / SHARD)
    (facts,) = fastload.snapshots(options=model.options)
    assert (facts.state, facts.details) == ("damaged", (SHARD,))


def test_a_link_that_leads_out_of_the_model_is_not_written_through(model: Model, tmp_path: Path) -> None:
    """Whoever may write to a folder of models must not have files elsewhere replaced by whoever repairs it."""
    model.warmed()
    folder = write_folder(tmp_path / "here/bare", model.files)
    write_folder(tmp_path / "mount/bare", model.files)
    options = replace(model.options, shared=str(tmp_path / "mount"))
    assert fastload.verify(folder, record=True, options=options).recorded
    victim = tmp_path / "victim"
    for content in (bytearray(model.files[SHARD]), b"short"):
        if isinstance(content, bytearray):
            content[5 * MIB] ^= 1
        victim.write_bytes(content)
        (folder / SHARD).unlink()
        (folder / SHARD).symlink_to(victim)
        with pytest.raises(FormatError, match="victim"):
            fastload.verify(folder, repair=True, options=options)
        assert victim.read_bytes() == content


@pytest.mark.parametrize("link", [".fastload", ".fastload/staging"])
def test_nor_is_one_where_what_is_made_to_mend_it_lies_meanwhile(model: Model, tmp_path: Path, link: str) -> None:
    folder = write_folder(tmp_path / "here/bare", model.files)
    write_download_metadata(folder, COMMIT, model.files)
    write_folder(tmp_path / "mount/bare", model.files)
    flip(folder / SHARD, 5 * MIB)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(elsewhere)
    before = elsewhere.stat().st_mtime_ns
    with pytest.raises(StoreError, match="leads out") as caught:
        fastload.verify(folder, repair=True, options=replace(model.options, shared=str(tmp_path / "mount")))
    assert [(each.path, each.repaired) for each in caught.value.findings] == [(SHARD, False)]
    assert elsewhere.stat().st_mtime_ns == before


@pytest.mark.parametrize("silent", ["the listing", "the blocks"])
def test_a_hub_that_does_not_answer_is_no_better_source(
    model: Model, hub: HubServer, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = sources._SOON
    assert patience.connect_timeout_s + patience.read_timeout_s <= 10
    assert patience.give_up_after_s is not None and patience.give_up_after_s < patience.read_timeout_s
    monkeypatch.setattr(sources, "_SOON", replace(patience, read_timeout_s=1.0, give_up_after_s=0.8))
    options = Options(local=str(model.local))
    folder = Path(fastload.warm(REPO, options=options).path)
    for at in (BLOCK + 1, 9):
        flip(folder / SHARD, at)
        flip(folder / OTHER_SHARD, at)
    hub.faults.add(Stall(-1, 60), path="*/api/*" if silent == "the listing" else "*/resolve/*", times=None)
    for run in (
        lambda: fastload.load(REPO, options=options),
        lambda: fastload.verify(REPO, repair=True, options=options),
    ):
        begin, asked = time.monotonic(), len(hub.asked(path="/resolve/"))
        with pytest.raises(IntegrityError, match="BLAKE3") as caught:
            run()
        assert time.monotonic() - begin < 10
        # Waited for once, not for each block; two files are checked at once.
        assert len(hub.asked(path="/resolve/")) - asked <= 2
    assert len(caught.value.findings) == 4


def test_a_load_delivers_what_was_signed_and_gives_no_blob_anothers_bytes(signed: Signed, tmp_path: Path) -> None:
    folder = signed.warmed()
    options = replace(signed.options, manifests=str(tmp_path / "manifests"))
    assert fastload.verify(REPO, record=True, options=options).recorded
    one, two = folder / SHARD, folder / OTHER_SHARD
    blobs = [one.resolve(), two.resolve()]
    before = [blob.read_bytes() for blob in blobs]
    aside = one.rename(folder / "aside")
    two.rename(one)
    aside.rename(two)
    weights = fastload.load(REPO, options=options)
    assert_same(weights, signed.tensors)
    assert weights.report.blocks_repaired
    assert [blob.read_bytes() for blob in blobs] == before


@pytest.mark.parametrize("longer", [-100, 1])
def test_of_a_file_of_another_length_only_the_wrong_blocks_come(model: Model, longer: int) -> None:
    folder = model.warmed()
    size = len(model.files[SHARD])
    with open((folder / SHARD).resolve(), "r+b") as file:
        file.truncate(size + longer)
    found = fastload.verify(REPO, repair=True, options=model.options)
    assert [(finding.path, finding.block, finding.repaired) for finding in found.findings] == [(SHARD, None, True)]
    assert (folder / SHARD).read_bytes() == model.files[SHARD]
    wrong_bytes = size % BLOCK if longer < 0 else 0
    assert found.bytes_by_tier.get(f"shared:{model.shared}", 0) == wrong_bytes
