"""The setting ``manifests``: what cannot hold its manifest has it elsewhere, and only our own word is taken."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from advice import follow_advice
from fastload import FormatError, IntegrityError, NotWritableError, Options, StoreError
from fastload._verify.manifest import MAX_MANIFEST_BYTES, Manifest, dump_manifest, parse_manifest
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from stored_models import OTHER_COMMIT, write_cache, write_download_metadata, write_folder
from writing import one_tensor, pack

if TYPE_CHECKING:
    from pathlib import Path

SHARD = "model-00001-of-00002.safetensors"
OTHER_SHARD = "model-00002-of-00002.safetensors"


class Apart(Model):
    """The model, and a folder for manifests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.manifests = folder / "manifests"

    @property
    def options(self) -> Options:
        return replace(super().options, tiers="shared", manifests=str(self.manifests))

    def mounted(self) -> Path:
        """On a shared mount, as the hub's client leaves it."""
        return write_cache(self.shared, REPO, "c0ffee" * 6 + "abcd", self.files)

    def bare(self) -> Path:
        """A plain folder of which nobody knows anything."""
        return write_folder(self.local.parent / "bare", self.files)

    def kept(self) -> list[Path]:
        """The manifests that are kept."""
        return [path for path in self.manifests.rglob("*.json") if not path.name.endswith(".stamp.json")]

    def record(self, folder: Path) -> Path:
        """Record a plain folder as if it could not be written; the manifest that is kept."""
        done = fastload.verify(folder, record=True, options=self.options)
        assert done.recorded
        beside = next((folder / ".fastload/manifests").iterdir())
        loaded = parse_manifest(beside.read_bytes(), path=str(beside))
        shutil.rmtree(folder / ".fastload")
        self._keep(folder, loaded)
        return self.kept()[0]

    def _keep(self, folder: Path, manifest: Manifest) -> None:
        from fastload._fetch.find.at_path import stored_at
        from fastload._store.folder_offer import offer_stored
        from fastload._store.manifest_folder import ManifestFolder

        stored = stored_at(str(folder))
        assert stored is not None
        ManifestFolder(str(self.manifests)).keep(stored, manifest, offer_stored(stored).files)

    def rewrite(self, path: Path, manifest: Manifest) -> None:
        """Another manifest in its place, with a stamp that names it."""
        from blake3 import blake3

        raw = dump_manifest(manifest)
        path.write_bytes(raw)
        stamp = path.with_name(f"{path.stem}.stamp.json")
        document = json.loads(stamp.read_bytes())
        stamp.write_text(json.dumps({**document, "manifest": blake3(raw).hexdigest()}))


@pytest.fixture
def model(tmp_path: Path) -> Apart:
    return Apart(tmp_path)


def parsed(path: Path) -> Manifest:
    return parse_manifest(path.read_bytes(), path=str(path))


def with_blocks(manifest: Manifest, path: str, blocks: tuple[str, ...]) -> Manifest:
    """The manifest with other blocks of one file: the right sha256, the wrong bytes."""
    files = tuple(replace(file, blocks=blocks) if file.path == path else file for file in manifest.files)
    return replace(manifest, files=files)


def age(path: Path) -> None:
    """An mtime that no rounding takes for the one before."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 100 * 10**9))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_first_load_of_a_mount_leaves_a_manifest_apart_and_nothing_on_the_mount(model: Apart) -> None:
    model.mounted()
    before = contents(model.shared)
    first = fastload.load(REPO, options=model.options)
    second = fastload.load(REPO, options=model.options)
    assert (first.report.evidence, second.report.evidence) == ("sha256", "manifest")
    assert_same(second, model.tensors)
    assert contents(model.shared) == before
    assert len(model.kept()) == 1
    part = fastload.load(REPO, tensors="1.0", verify="require", options=model.options)
    assert (part.report.evidence, part.report.blocks_verified) == ("manifest", 1)


def test_a_flip_on_the_mount_is_found_by_block(model: Apart) -> None:
    snapshot = model.mounted()
    fastload.load(REPO, options=model.options)
    flip(snapshot / SHARD, 5 * MIB)
    with pytest.raises(IntegrityError, match="block 1"):
        fastload.load(REPO, options=model.options)


@pytest.mark.parametrize("kind", ["sha256", "etag"])
def test_a_load_from_a_path_leaves_one_apart_and_never_beside(model: Apart, kind: str) -> None:
    folder = model.mounted() if kind == "sha256" else model.downloaded()
    assert fastload.load(folder).report.evidence == kind
    assert not model.kept()
    assert fastload.load(folder, options=model.options).report.evidence == kind
    assert fastload.load(folder, options=model.options).report.evidence == "manifest"
    assert not (folder / ".fastload").exists() and not (folder.parent.parent / ".fastload").exists()


def test_a_large_file_that_the_load_did_not_read_is_not_read_for_its_sake(model: Apart) -> None:
    folder = model.downloaded()
    os.truncate(folder / "config.json", 65 * MIB)  # damaged, too: whoever reads it must say so
    fastload.load(folder, options=model.options)
    assert [file.path for file in parsed(model.kept()[0]).files] == sorted(model.files.keys() - {"config.json"})


class Pipeline(Apart):
    """Two components, each with a file that is too large to be read for the sake of a manifest."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        weights = {f"{name}/model.safetensors": pack({"w": ("U8", [size], bytes(size))}) for name, size in LARGE}
        self.files = {**weights, "config.json": b"{}"}


LARGE = (("one", 65 * MIB), ("two", 65 * MIB + 8))


@pytest.mark.parametrize("kind", ["sha256", "etag"])
def test_the_load_of_another_component_forgets_nothing(tmp_path: Path, kind: str) -> None:
    model = Pipeline(tmp_path)
    folder = model.mounted() if kind == "sha256" else model.downloaded()
    loads = [fastload.load(folder, subfolder=name, options=model.options) for name in ("one", "two", "one", "two")]
    assert [load.report.evidence for load in loads] == [kind, kind, "manifest", "manifest"]
    assert "a manifest was left" in loads[1].report.evidence_reason
    flip(folder / "one/model.safetensors", 5 * MIB)
    with pytest.raises(IntegrityError, match="block 1"):
        fastload.load(folder, subfolder="one", options=model.options)


def test_a_component_that_comes_later_takes_nothing_from_a_base_that_was_recorded(
    model: Apart, caplog: pytest.LogCaptureFixture
) -> None:
    """It is proven by its etag, and said to be; the base stays as it was recorded, and so do its small files."""
    base = model.bare()
    model.record(base)
    adapter = {"adapter/model.safetensors": one_tensor()}
    write_folder(base, adapter)
    write_download_metadata(base, OTHER_COMMIT, adapter)
    report = fastload.load(base, subfolder="adapter", verify="require", options=model.options).report
    assert report.evidence == "etag"
    assert "in the order of each file; a manifest was left" in report.evidence_reason
    again = fastload.load(base, verify="require", options=model.options)
    assert_same(again, model.tensors)
    assert again.report.evidence == "manifest (recorded)"
    assert not caplog.text
    (base / "config.json").write_bytes(b'{"new": 1}')
    fastload.load(base, options=model.options)
    assert "config.json was written after it was recorded" in caplog.text


def test_two_mounts_and_two_folders_do_not_collide(model: Apart, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    other = Model(tmp_path / "more")
    other.files["config.json"] = b'{"other": 1}'
    one, two = model.downloaded(), other.downloaded()
    for folder in (one, two):
        fastload.load(folder, options=model.options)
    snapshots = [model.mounted(), write_cache(tmp_path / "mount", REPO, OTHER_COMMIT, other.files)]
    for folder in snapshots:
        fastload.load(folder, options=model.options)
    assert len(model.kept()) == 4
    for folder in (one, two, *snapshots):
        assert fastload.load(folder, options=model.options).report.evidence == "manifest"


def test_of_two_commits_at_one_place_neither_is_taken_for_the_other(model: Apart) -> None:
    folder = model.downloaded()
    fastload.load(folder, options=model.options)
    shutil.rmtree(folder)
    model.files[SHARD], model.files[OTHER_SHARD] = model.files[OTHER_SHARD], model.files[SHARD]
    model.files.pop("model.safetensors.index.json")
    model.downloaded()
    assert fastload.load(folder, options=model.options).report.evidence == "etag"
    assert fastload.load(folder, options=model.options).report.evidence == "manifest"


def test_a_recorded_folder_is_known_by_the_manifest_apart(model: Apart) -> None:
    folder = model.bare()
    model.record(folder)
    weights = fastload.load(folder, verify="require", options=model.options)
    assert weights.report.evidence == "manifest (recorded)"
    assert fastload.load(folder).report.evidence == "none"
    flip(folder / SHARD, 5 * MIB)
    with pytest.raises(IntegrityError, match="block 1"):
        fastload.load(folder, options=model.options)
    with pytest.raises(IntegrityError) as caught:
        fastload.verify(folder, options=model.options)
    assert [(finding.path, finding.block) for finding in caught.value.findings] == [(SHARD, 1)]


def test_a_recorded_folder_of_other_weights_is_no_more_than_recorded(model: Apart) -> None:
    model.files = {"model.gguf": b"GGUF" + bytes(1 << 20), "config.json": b"{}"}
    folder = model.bare()
    model.record(folder)
    assert fastload.verify(folder, options=model.options).evidence == "manifest (recorded)"


def test_a_folder_that_was_changed_on_purpose_is_unknown_again(model: Apart, caplog: pytest.LogCaptureFixture) -> None:
    folder = model.bare()
    model.record(folder)
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes())  # the same bytes, a new mtime
    weights = fastload.load(folder, options=model.options)
    assert weights.report.evidence == "none"
    assert f"{SHARD} was written after it was recorded" in caplog.text and "--record" in caplog.text
    with pytest.raises(IntegrityError, match="nothing is known"):
        fastload.load(folder, verify="require", options=model.options)
    assert fastload.verify(folder, record=True, options=model.options).recorded
    assert fastload.load(folder, options=model.options).report.evidence == "manifest (recorded)"


def test_a_change_of_one_file_leaves_the_others_known(model: Apart, caplog: pytest.LogCaptureFixture) -> None:
    folder = model.bare()
    model.record(folder)
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes())
    assert fastload.load(folder, options=model.options).report.blocks_verified == 2
    flip(folder / OTHER_SHARD, 5 * MIB)
    with pytest.raises(IntegrityError, match="block 1"):
        fastload.load(folder, options=model.options)
    model.bare()
    model.record(folder)
    (folder / "config.json").write_bytes(b'{"new": 1}')
    caplog.clear()
    weights = fastload.load(folder, verify="require", options=model.options)
    assert weights.report.evidence == "manifest (recorded)"
    assert "config.json was written after it was recorded" in caplog.text


def test_shards_that_became_one_file_are_recorded_anew(model: Apart) -> None:
    """Nothing of what was recorded is left but a file that no load reads."""
    folder = model.bare()
    model.record(folder)
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "config.json").write_bytes(b'{"new": 1}')
    (folder / "model.safetensors").write_bytes(one_tensor())
    with pytest.raises(IntegrityError, match="nothing is known"):
        fastload.load(folder, verify="require", options=model.options)
    assert fastload.verify(folder, record=True, options=model.options).recorded
    assert fastload.load(folder, verify="require", options=model.options).report.evidence == "manifest (recorded)"


def test_a_file_that_is_gone_is_missing_not_unknown(model: Apart) -> None:
    folder = model.bare()
    model.record(folder)
    (folder / SHARD).unlink()
    with pytest.raises(IntegrityError, match="no file"):
        fastload.load(folder, options=model.options)


class Parts(Apart):
    """Two shards, and no index that names them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = {f"part-{name}.safetensors": one_tensor(name) for name in "ab"} | {"config.json": b"{}"}


@pytest.mark.parametrize("kind", ["recorded", "downloaded"])
def test_a_shard_that_no_index_names_is_missed_when_it_is_gone(tmp_path: Path, kind: str) -> None:
    model = Parts(tmp_path)
    folder = model.bare() if kind == "recorded" else model.downloaded()
    if kind == "recorded":
        model.record(folder)
    else:
        fastload.load(folder, options=model.options)
    (folder / "part-b.safetensors").unlink()
    for run in (fastload.load, fastload.verify):
        with pytest.raises(IntegrityError, match=r"part-b\.safetensors.*no"):
            run(folder, options=model.options)
    assert fastload.verify(folder, record=True, options=model.options).recorded  # as the error advises
    assert len(fastload.load(folder, verify="require", options=model.options)) == 1


def test_a_shard_that_was_added_is_unknown_to_a_check_too(tmp_path: Path) -> None:
    model = Parts(tmp_path)
    folder = model.bare()
    model.record(folder)
    write_folder(folder, {"part-c.safetensors": one_tensor("c")})
    assert fastload.load(folder, options=model.options).report.evidence == "none"
    assert fastload.verify(folder, options=model.options).evidence == "none"
    for run in (fastload.load, fastload.verify):
        with pytest.raises(IntegrityError, match="nothing"):
            run(folder, options=replace(model.options, verify="require"))


def test_what_the_manifest_beside_names_no_more_is_not_missed_by_an_older_one_apart(tmp_path: Path) -> None:
    model = Parts(tmp_path)
    folder = model.bare()
    (folder / "README.md").write_bytes(b"hello")
    model.record(folder)
    (folder / "part-b.safetensors").unlink()
    assert fastload.verify(folder, record=True).recorded
    (folder / "README.md").write_bytes(b"hello again")
    age(folder / "README.md")
    report = fastload.load(folder, verify="require", options=model.options).report
    assert report.evidence == "manifest (recorded)"


def test_what_is_kept_apart_of_a_recorded_folder_outlives_its_manifest(
    model: Apart, caplog: pytest.LogCaptureFixture
) -> None:
    """Small files that the manifest beside knew were not written since, whoever has removed it."""
    folder = model.recorded()
    age(folder / SHARD)
    write_download_metadata(folder, OTHER_COMMIT, {SHARD: model.files[SHARD]})
    assert fastload.load(folder, options=model.options).report.evidence == "etag"
    assert "config.json" in [file.path for file in parsed(model.kept()[0]).files]
    shutil.rmtree(folder / ".fastload")
    caplog.clear()
    fastload.load(folder, options=model.options)
    assert "was written after" not in caplog.text


def test_what_contradicts_the_names_of_blobs_or_etags_is_not_believed(
    model: Apart, caplog: pytest.LogCaptureFixture
) -> None:
    for folder, kind in ((model.mounted(), "sha256"), (model.downloaded(), "etag")):
        fastload.load(folder, options=model.options)
        (path,) = [path for path in model.kept() if parsed(path).repo == ("org/name" if kind == "sha256" else "plain")]
        manifest = parsed(path)
        for name in ("config.json", SHARD):
            files = tuple(replace(f, sha256="ab" * 32, git_sha1=None) if f.path == name else f for f in manifest.files)
            commit = manifest.commit
            if kind == "etag":
                from fastload._verify.manifest import plain_commit

                commit = plain_commit(files)
            caplog.clear()
            model.rewrite(path, replace(manifest, files=files, commit=commit))
            assert fastload.load(folder, tensors="1.0", options=model.options).report.evidence == "none"
            assert "not believed" in caplog.text
            assert_same(fastload.load(folder, options=model.options), model.tensors)  # leaves a right one
            assert fastload.load(folder, options=model.options).report.evidence == "manifest"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("the file", "may be written by others"),
        ("the folder", "may be written by others"),
        ("the stamp", "may be written by others"),
        ("a link", "is a link"),
        ("another owner", "belongs to uid 65534, who is neither this user nor root"),
        ("a wide folder", "may be written by others"),
    ],
)
def test_what_others_may_have_written_is_not_looked_at(
    model: Apart, what: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = model.mounted()
    fastload.load(REPO, options=model.options)
    path = model.kept()[0]
    model.rewrite(path, with_blocks(parsed(path), SHARD, ("ab" * 32,) * 2))
    with pytest.raises(IntegrityError, match="block 0"):  # it is believed as long as it is ours
        fastload.load(REPO, options=model.options)
    stamp = path.with_name(f"{path.stem}.stamp.json")
    if what in {"the file", "the stamp"}:
        (path if what == "the file" else stamp).chmod(0o666)
    elif what == "a link":
        shutil.move(path, snapshot.parent / "elsewhere.json")
        path.symlink_to(snapshot.parent / "elsewhere.json")
    elif what == "another owner":
        if os.geteuid():
            pytest.skip("only root may give a file away")
        os.chown(path, 65534, 65534)
    else:
        path.parent.chmod(0o777 if what == "the folder" else 0o775)
    assert_same(fastload.load(REPO, tensors="1.*", options=model.options), {
        name: tensor for name, tensor in model.tensors.items() if name.startswith("1.")
    })  # fmt: skip
    assert f"{reason}: it is passed over" in re.sub(r" \(uid \d+ owns it\)", "", caplog.text)


@pytest.mark.parametrize("what", ["the folder", "the file", "the stamp", "all of it"])
def test_whoever_does_what_the_warning_of_one_kept_apart_says_has_evidence_again(
    model: Apart, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model.bare()
    path = model.record(folder)
    stamp = path.with_name(f"{path.stem}.stamp.json")
    places = {"the folder": [path.parent], "the file": [path], "the stamp": [stamp], "all of it": [path, stamp]}
    for place in (*places[what], *([path.parent] if what == "all of it" else ())):
        place.chmod(0o777)
    assert fastload.load(folder, options=model.options).report.evidence == "none"
    follow_advice(caplog.text, {**os.environ, "FASTLOAD_MANIFESTS": str(model.manifests)})
    assert fastload.load(folder, verify="require", options=model.options).report.evidence == "manifest (recorded)"


def test_a_report_says_which_manifest_was_passed_over(model: Apart) -> None:
    folder = model.bare()
    path = model.record(folder)
    path.chmod(0o666)
    report = fastload.load(folder, options=model.options).report
    assert report.evidence == "none"
    assert f"{path} may be written by others" in report.evidence_reason
    with pytest.raises(IntegrityError, match="may be written by others"):
        fastload.load(folder, verify="require", options=model.options)


def test_a_group_may_own_the_volume_and_an_open_umask_opens_nothing(model: Apart) -> None:
    model.manifests.mkdir()
    model.manifests.chmod(0o2775)
    model.mounted()
    folder = model.bare()
    before = os.umask(0)
    try:
        fastload.load(REPO, options=model.options)
        fastload.verify(folder, record=True)
    finally:
        os.umask(before)
    assert fastload.load(REPO, options=model.options).report.evidence == "manifest"
    assert fastload.load(folder).report.evidence == "manifest (recorded)"


def test_a_folder_that_others_may_write_is_refused_by_record_and_named(model: Apart) -> None:
    folder = model.bare()
    (folder / ".fastload/manifests").mkdir(parents=True)
    (folder / ".fastload/manifests").chmod(0o777)
    with pytest.raises(StoreError, match="chmod go-w"):
        fastload.verify(folder, record=True)
    assert fastload.verify(folder, record=True, options=model.options).recorded  # apart, as where it may not write
    evidence = fastload.load(folder, verify="require", options=model.options).report.evidence
    assert (len(model.kept()), evidence) == (1, "manifest (recorded)")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.replace(b'"size":2', b'"size":9000002', 1), "blocks"),
        (lambda raw: raw.replace(b'"sha256":"', b'"sha256":"x', 1), "sha256"),
        (lambda raw: raw.replace(b'"path":"config', b'"path":"../config', 1), "plain and relative"),
        (lambda raw: raw.replace(b'"path":"config', b'"path":"/config', 1), "plain and relative"),
        (lambda raw: raw[: len(raw) // 2], "JSON"),
        (lambda _: b" " * (MAX_MANIFEST_BYTES + 1), "at most"),
    ],
    ids=["size", "hex", "outside", "absolute", "cut", "huge"],
)
def test_hostile_content_is_refused_by_name(model: Apart, change: object, said: str) -> None:
    assert callable(change)
    model.mounted()
    fastload.load(REPO, options=model.options)
    path = model.kept()[0]
    raw = path.read_bytes()
    path.write_bytes(change(raw))
    assert path.read_bytes() != raw
    with pytest.raises(FormatError) as caught:
        fastload.load(REPO, options=model.options)
    assert caught.value.path == str(path)
    assert said in str(caught.value)


def test_a_manifest_without_a_shard_proves_the_others_only(model: Apart) -> None:
    model.mounted()
    fastload.load(REPO, options=model.options)
    path = model.kept()[0]
    manifest = parsed(path)
    model.rewrite(path, replace(manifest, files=tuple(f for f in manifest.files if f.path != SHARD)))
    weights = fastload.load(REPO, options=model.options)
    assert (weights.report.evidence, weights.report.blocks_verified) == ("sha256", 4)


def test_a_stamp_of_another_manifest_is_one_that_is_being_replaced(model: Apart) -> None:
    model.mounted()
    fastload.load(REPO, options=model.options)
    path = model.kept()[0]
    path.with_name(f"{path.stem}.stamp.json").write_text("{}")
    assert fastload.load(REPO, options=model.options).report.evidence == "sha256"
    assert fastload.load(REPO, options=model.options).report.evidence == "manifest"


def test_manifests_that_cannot_be_written_are_no_error_of_the_loads(
    model: Apart, caplog: pytest.LogCaptureFixture
) -> None:
    model.mounted()
    model.manifests.write_text("a file")
    with caplog.at_level(logging.INFO, "fastload"):
        assert_same(fastload.load(REPO, options=model.options), model.tensors)
    assert "no manifest was left" in caplog.text


READ_ONLY = "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec {1}"


def _on_a_read_only_mount(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = " ".join([sys.executable, "-m", "fastload", *map(str, words)])
    script = READ_ONLY.format(folder, command)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )


may_mount = pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="may not mount",
)


@may_mount
@pytest.mark.parametrize("kind", ["shared", "plain"])
def test_record_goes_into_manifests_where_the_mount_is_read_only(model: Apart, kind: str) -> None:
    folder = model.mounted() if kind == "shared" else model.bare()
    top = model.shared if kind == "shared" else folder
    flags = ["--record", "--json", "--shared", model.shared, "--tiers", "shared"]
    name = REPO if kind == "shared" else folder
    refused = _on_a_read_only_mount(top, "verify", name, *flags)
    assert refused.returncode == NotWritableError.exit_code, refused.stdout
    assert "manifests" in json.loads(refused.stdout)["error"]["hint"]
    done = _on_a_read_only_mount(top, "verify", name, *flags, "--manifests", model.manifests)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recorded"] is True
    evidence = fastload.load(folder, verify="require", options=model.options).report.evidence
    assert evidence == ("manifest" if kind == "shared" else "manifest (recorded)")


@may_mount
def test_what_the_manifest_beside_knows_no_more_is_known_by_the_one_apart(
    model: Apart, caplog: pytest.LogCaptureFixture
) -> None:
    """The config was edited, and recorded again where its folder could not be written any more."""
    model.files = {"model.safetensors": pack({"w": ("F32", [1], bytes(4))}), "config.json": b"{}"}
    folder = model.recorded()
    (folder / "config.json").write_bytes(b'{"edited": true}')
    age(folder / "config.json")
    done = _on_a_read_only_mount(folder, "verify", folder, "--record", "--manifests", model.manifests)
    assert done.returncode == 0, done.stderr
    assert len(model.kept()) == 1
    assert all(file.evidence == "blocks" for file in fastload.verify(folder, options=model.options).files)
    fastload.load(folder, dtype="F16", verify="require", options=model.options)
    assert "written after" not in caplog.text
    flip(folder / "config.json", 3)
    with pytest.raises(IntegrityError, match=r"config\.json"):
        fastload.load(folder, dtype="F16", options=model.options)


@may_mount
def test_a_local_tier_that_is_read_only_has_its_manifests_elsewhere(model: Apart) -> None:
    snapshot = model.cached()
    before = contents(model.local)
    flags = ["--json", "--local", model.local, "--tiers", "local", "--manifests", model.manifests]
    evidence = []
    for _ in range(2):
        done = _on_a_read_only_mount(model.local, "load", REPO, *flags)
        assert done.returncode == 0, done.stderr
        evidence.append(json.loads(done.stdout)["evidence"])
    assert evidence == ["sha256", "manifest"]
    assert contents(model.local) == before
    flip(snapshot / SHARD, 5 * MIB)
    assert _on_a_read_only_mount(model.local, "load", REPO, *flags).returncode == IntegrityError.exit_code


@pytest.mark.parametrize("name", [b"a\nb", b"a\xff"])
@pytest.mark.parametrize("is_apart", [True, False])
def test_a_folder_whose_name_no_manifest_can_hold_is_not_recorded(
    model: Apart,
    name: bytes,
    is_apart: bool,  # noqa: FBT001 - a case
) -> None:
    folder = write_folder(model.local.parent / os.fsdecode(name), {"model.safetensors": one_tensor()})
    options = model.options if is_apart else Options()
    with pytest.raises(FormatError, match="name that no manifest can hold"):
        fastload.verify(folder, record=True, options=options)
    assert not (folder / ".fastload").exists() and not model.manifests.exists()
    assert fastload.load(folder, options=options).report.evidence == "none"
    write_download_metadata(folder, OTHER_COMMIT, {"model.safetensors": one_tensor()})
    assert fastload.load(folder, options=options).report.evidence == "etag"  # what proves it is kept nowhere
    assert not model.manifests.exists()
