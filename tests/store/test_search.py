"""Where a name is found: tiers in order, layouts, completeness, and what is said of a name that nobody has."""

from __future__ import annotations

import json
import os
import struct
import threading
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import ModelNotFoundError
from fastload._store.ref import Name, parse_ref
from fastload._store.root import Root
from fastload._store.stored import PlainFolder
from fastload._store.tiered import PATIENCE_S, Search, Tiers, search
from fastload._tier import LOCAL, shared_tier
from stopwatch import Stopwatch
from stored_models import (
    COMMIT,
    OTHER_COMMIT,
    model_files,
    write_cache,
    write_download_metadata,
    write_folder,
    write_tree,
)
from writing import INDEX_NAME, pack, write_index

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARD = "model-00001-of-00002.safetensors"
ALIASES = {"llama": ("meta/Llama-3", "Meta-Llama-3", "Llama-3")}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All mounts say which names they have, however busy the machine is."""
    monkeypatch.setattr("fastload._store.tiered._NAMES_PATIENCE_S", 60.0)


class Mounts:
    """A local tier and two shared ones, in folders of the test."""

    def __init__(self, folder: Path) -> None:
        self.local, self.a, self.b = folder / "local", folder / "a", folder / "b"

    @property
    def tiers(self) -> Tiers:
        shared = tuple(Root(str(path), shared_tier(str(path))) for path in (self.a, self.b))
        return Tiers(local=Root(str(self.local), LOCAL), shared=shared)

    def search(self, text: str, revision: str | None = None) -> Search:
        name = parse_ref(text, revision, ALIASES)
        assert isinstance(name, Name)
        return search(name, self.tiers)

    def find(self, text: str, revision: str | None = None) -> tuple[str, str]:
        found = self.search(text, revision).found
        assert found is not None
        return found.tier.kind, found.folder


@pytest.fixture
def mounts(tmp_path: Path) -> Mounts:
    return Mounts(tmp_path)


def test_the_first_tier_that_has_it_serves(mounts: Mounts) -> None:
    there = write_cache(mounts.b, "org/name", COMMIT, model_files())
    assert mounts.find("org/name") == ("shared", str(there))
    nearer = write_cache(mounts.a, "org/name", COMMIT, model_files())
    assert mounts.find("org/name") == ("shared", str(nearer))
    here = write_cache(mounts.local, "org/name", COMMIT, model_files())
    assert mounts.find("org/name") == ("local", str(here))


def test_a_revision_is_found_by_its_ref_or_its_commit(mounts: Mounts) -> None:
    one = write_cache(mounts.local, "org/name", COMMIT, model_files())
    two = write_cache(mounts.local, "org/name", OTHER_COMMIT, model_files(1), ref="refs/pr/1")
    assert mounts.find("org/name")[1] == mounts.find("org/name@main")[1] == str(one)
    assert mounts.find("org/name@refs/pr/1")[1] == mounts.find("org/name", OTHER_COMMIT)[1] == str(two)
    assert mounts.search("org/name@v2").found is None


def test_a_plain_folder_is_found_by_its_name(mounts: Mounts) -> None:
    bare = write_folder(mounts.a / "Meta-Llama-3", model_files())
    nested = write_folder(mounts.a / "org" / "name", model_files())
    assert mounts.find("Meta-Llama-3")[1] == str(bare)
    assert mounts.find("org/name")[1] == str(nested)
    assert mounts.search("other/name").found is None
    assert mounts.search("org").found is None


def test_half_a_name_will_do_only_for_an_alias_or_by_its_own_word(mounts: Mounts) -> None:
    folder = write_folder(mounts.a / "Llama-3", model_files())
    assert mounts.search("meta/Llama-3").found is None
    assert mounts.find("llama")[1] == str(folder)
    assert mounts.search("meta/Llama-3", COMMIT).found is None
    write_download_metadata(folder, COMMIT, model_files())
    assert mounts.find("meta/Llama-3", COMMIT)[1] == str(folder)
    assert mounts.search("meta/Llama-3", OTHER_COMMIT).found is None


def test_an_alias_tries_all_its_candidates_before_the_next_tier(mounts: Mounts) -> None:
    write_cache(mounts.b, "meta/Llama-3", COMMIT, model_files())
    folder = write_folder(mounts.a / "Meta-Llama-3", model_files())
    assert mounts.find("llama")[1] == str(folder)


def test_an_index_without_its_shard_is_incomplete(mounts: Mounts) -> None:
    snapshot = write_cache(mounts.local, "org/name", COMMIT, model_files())
    (snapshot / SHARD).unlink()
    found = mounts.search("org/name")
    assert found.found is None
    assert SHARD in found.incomplete[0].missing[0]
    error = found.miss()
    assert "Incomplete" in error.hint
    assert str(mounts.local) in error.searched


def test_a_shard_that_is_shorter_than_its_header_says_is_incomplete(mounts: Mounts) -> None:
    snapshot = write_cache(mounts.local, "org/name", COMMIT, model_files())
    os.truncate(snapshot / SHARD, os.path.getsize(snapshot / SHARD) - 1)
    assert "expected" in mounts.search("org/name").incomplete[0].missing[0]


def _lose(folder: Path) -> None:
    (folder / SHARD).unlink()


def _lose_unheard(folder: Path) -> None:
    _lose(folder)
    (folder / ".fastload/manifests").chmod(0o777)


def _lose_downloading(folder: Path) -> None:
    _lose(folder)
    write_folder(folder, {".cache/huggingface/download/x.incomplete": b""})


def _gain(folder: Path) -> None:
    write_index(folder, {"a": "other.safetensors"}, "other.safetensors.index.json")


@pytest.mark.parametrize(
    ("change", "is_damaged"), [(_lose, True), (_lose_unheard, False), (_lose_downloading, False), (_gain, False)]
)
def test_what_a_recorded_folder_lacks_is_damage_where_its_record_names_it(
    mounts: Mounts,
    change: Callable[[Path], None],
    is_damaged: bool,  # noqa: FBT001 - a case
) -> None:
    folder = write_folder(mounts.a / "name", model_files())
    fastload.verify(folder, record=True)
    change(folder)
    found = mounts.search("name")
    there = found.found or found.incomplete[0]
    assert isinstance(there, PlainFolder)
    assert there.missing
    assert there.is_damaged is is_damaged


def test_a_numbered_set_with_a_gap_is_incomplete(mounts: Mounts) -> None:
    files = model_files()
    del files[INDEX_NAME], files["model-00002-of-00002.safetensors"]
    write_folder(mounts.a / "Meta-Llama-3", files)
    assert "00002-of-00002" in mounts.search("Meta-Llama-3").incomplete[0].missing[0]


def test_a_download_under_way_is_incomplete_and_one_given_up_long_ago_is_not(mounts: Mounts) -> None:
    snapshot = write_cache(mounts.local, "org/name", COMMIT, model_files())
    blobs = snapshot.parent.parent / "blobs"
    (blobs / f"{os.listdir(blobs)[0]}.0123abcd.incomplete").touch()
    assert mounts.find("org/name")[0] == "local"
    (blobs / f"{'e' * 64}.0123abcd.incomplete").touch()
    assert "not finished" in mounts.search("org/name").incomplete[0].missing[0]


def test_a_listing_says_what_is_missing_that_no_weights_would_tell(mounts: Mounts) -> None:
    files = model_files()
    snapshot = write_cache(mounts.local, "org/name", COMMIT, files)
    write_tree(snapshot, {**files, "extra.bin": b"left out"})
    assert mounts.find("org/name")[0] == "local"
    (snapshot / "tokenizer.json").unlink()
    found = mounts.search("org/name").incomplete[0]
    assert (found.judged_by, found.missing) == ("listing", ("no 'tokenizer.json'",))
    (snapshot / "tokenizer.json").write_bytes(b"{}")
    assert "bytes" in mounts.search("org/name").incomplete[0].missing[0]


@pytest.mark.parametrize("without", ["README.md", "LICENSE"])
def test_what_only_people_read_may_be_missing_of_a_listing(mounts: Mounts, without: str) -> None:
    """As a server leaves the cache that fetched only what it loads."""
    files = model_files()
    write_tree(write_cache(mounts.local, "org/name", COMMIT, files), {**files, without: b"for people"})
    found = mounts.search("org/name").found
    assert found is not None
    assert found.judged_by == "structure", "warm brings the rest"


def test_weights_that_only_a_listing_names_are_missing(mounts: Mounts) -> None:
    files = {f"{name}.safetensors": pack({name: ("U8", [4], b"1234")}) for name in ("a", "b")}
    snapshot = write_cache(mounts.local, "org/name", COMMIT, files)
    write_tree(snapshot, {**files, "README.md": b"for people"})
    (snapshot / "b.safetensors").unlink()
    assert mounts.search("org/name").incomplete[0].missing == ("no 'b.safetensors'",)


@pytest.mark.parametrize("suffix", ["gguf", "bin"])
@pytest.mark.parametrize(("there", "missing"), [((), "weights"), ((1,), "00002-of-00002"), ((1, 2), "")])
def test_a_listing_does_not_hide_that_other_weights_are_missing(
    mounts: Mounts, suffix: str, there: tuple[int, ...], missing: str
) -> None:
    """``warm`` would take none of them by default, so that by the listing nothing is missing."""
    weights = [f"m-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    files = {"config.json": b"{}", **dict.fromkeys(weights, b"GGUF")}
    kept = {"config.json", *(weights[number - 1] for number in there)}
    snapshot = write_cache(mounts.local, "org/name", COMMIT, {name: files[name] for name in kept})
    write_tree(snapshot, files)
    seen = mounts.search("org/name")
    assert (seen.found is not None) == (not missing)
    assert all(missing in stored.missing[0] for stored in seen.incomplete)


def test_a_download_under_way_of_other_weights_is_incomplete_whatever_the_listing_says(mounts: Mounts) -> None:
    files = {"config.json": b"{}", "a.gguf": b"GGUF", "b.gguf": b"GGUF.b"}
    snapshot = write_cache(mounts.local, "org/name", COMMIT, {name: files[name] for name in ("config.json", "a.gguf")})
    write_tree(snapshot, files)
    assert mounts.find("org/name")[0] == "local"
    (snapshot.parent.parent / "blobs" / f"{'e' * 64}.0123abcd.incomplete").touch()
    assert "not finished" in mounts.search("org/name").incomplete[0].missing[0]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format_version": 2, "files": {}}', '{"format_version": 1, "files": {"a": 5}}']
)
def test_a_listing_that_cannot_be_believed_counts_as_none(mounts: Mounts, text: str) -> None:
    snapshot = write_cache(mounts.local, "org/name", COMMIT, model_files())
    (snapshot.parent.parent / "trees").mkdir()
    (snapshot.parent.parent / "trees" / f"{COMMIT}.json").write_text(text)
    found = mounts.search("org/name").found
    assert found is not None
    assert found.judged_by == "structure"


def test_components_in_subfolders_are_weights_too(mounts: Mounts) -> None:
    files = {f"unet/{name}": content for name, content in model_files().items()} | {"model_index.json": b"{}"}
    snapshot = write_cache(mounts.local, "org/pipeline", COMMIT, files)
    assert mounts.find("org/pipeline")[0] == "local"
    (snapshot / "unet" / SHARD).unlink()
    assert mounts.search("org/pipeline").found is None


def test_the_index_of_any_variant_must_have_its_shards(mounts: Mounts) -> None:
    files = {**model_files(), "model.safetensors.index.fp8-e4m3.json": b'{"weight_map":{"a":"gone.safetensors"}}'}
    write_cache(mounts.local, "org/name", COMMIT, files)
    assert mounts.search("org/name").incomplete[0].missing == (
        "no 'gone.safetensors', which 'model.safetensors.index.fp8-e4m3.json' names for 'a'",
    )


def test_an_unfinished_download_into_a_plain_folder_is_incomplete(mounts: Mounts) -> None:
    folder = write_folder(mounts.a / "Meta-Llama-3", model_files())
    write_download_metadata(folder, COMMIT, model_files())
    assert mounts.find("Meta-Llama-3")[0] == "shared"
    (folder / ".cache/huggingface/download/x.incomplete").touch()
    assert mounts.search("Meta-Llama-3").found is None


@pytest.mark.parametrize("mark", [".aria2", ".part", ".crdownload"])
def test_weights_that_a_tool_has_not_finished_are_incomplete(mounts: Mounts, mark: str) -> None:
    """aria2 gives a file its full length first, so that its header says nothing."""
    folder = write_folder(mounts.a / "Meta-Llama-3", model_files())
    (folder / f"{SHARD}{mark}").touch()
    assert f"{SHARD}{mark}" in mounts.search("Meta-Llama-3").incomplete[0].missing[0]


def test_a_gguf_file_that_was_cut_is_incomplete(mounts: Mounts) -> None:
    tensor = struct.pack("<Q1sIQIQ", 1, b"w", 1, 1000, 0, 0)  # 1000 floats
    whole = (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor).ljust(64, b"\0") + bytes(4000)
    folder = write_folder(mounts.a / "Meta-Llama-3", {"m.gguf": whole, "config.json": b"{}"})
    assert mounts.find("Meta-Llama-3")[0] == "shared"
    for length in (len(whole) - 1, 30):
        os.truncate(folder / "m.gguf", length)
        assert f"has {length:,} of at least" in mounts.search("Meta-Llama-3").incomplete[0].missing[0]


def test_a_pipeline_without_a_component_that_its_index_names_is_incomplete(mounts: Mounts) -> None:
    index = {"_class_name": "P", "vae": ["diffusers", "A"], "unet": ["diffusers", "U"], "other": [None, None]}
    weights = pack({"a": ("U8", [4], b"abcd")})
    files = {"model_index.json": json.dumps(index).encode(), "vae/config.json": b"{}", "vae/model.safetensors": weights}
    folder = write_folder(mounts.a / "sd", files)
    assert mounts.search("sd").incomplete[0].missing == ("no 'unet', which 'model_index.json' names",)
    write_folder(folder, {"unet/config.json": b"{}"})
    assert mounts.search("sd").incomplete[0].missing == ("no weights in 'unet'",)
    write_folder(folder, {"unet/model.safetensors": weights})
    assert mounts.find("sd")[0] == "shared"


def test_a_name_that_nobody_has_is_answered_with_the_nearest(mounts: Mounts) -> None:
    write_cache(mounts.local, "meta-llama/Llama-3.1-8B", COMMIT, model_files())
    error = mounts.search("meta-llama/Llama-3.1-8").miss("https://hub")
    assert "meta-llama/Llama-3.1-8B" in error.hint
    assert error.searched == (str(mounts.local), str(mounts.a), str(mounts.b), "https://hub")
    assert error.exit_code == 12


def test_a_bare_name_that_nobody_has_was_not_looked_for_at_the_hub(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    options = fastload.Options(local=str(mounts.local), tiers=("local", "hub"))
    for verb in (fastload.inspect, fastload.warm):
        with pytest.raises(ModelNotFoundError, match=r"write org/foo$") as caught:
            verb("foo", options=options)
        assert caught.value.searched == (str(mounts.local),)
    assert "https://hub" in mounts.search("llama").miss_with_hub("https://hub").searched  # for one of its candidates
    with pytest.raises(ModelNotFoundError, match=r"Check the name$"):
        fastload.resolve("foo", options=options)


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ("meta/Llama-4", "'meta/Llama-3'"),
        ("Llama-3", "'llama', 'meta/Llama-3'"),
        ("other/Llama-3", "'meta/Llama-3'"),
        ("llamas", "'llama'"),
        ("org/abd", "'org/abc'"),
    ],
)
def test_the_nearest_may_be_a_plain_folder_or_an_alias(mounts: Mounts, wanted: str, nearest: str) -> None:
    write_folder(mounts.a / "meta" / "Llama-3", model_files())
    (mounts.a / "meta" / ".hidden").mkdir()
    write_cache(mounts.local, "org/abc", COMMIT, model_files())
    assert f"Nearest: {nearest}" in mounts.search(wanted).miss().hint


@pytest.mark.parametrize("wanted", ["org/name", f"org/name@{'0' * 40}"])
def test_what_is_there_at_another_commit_than_was_meant_is_named(mounts: Mounts, wanted: str) -> None:
    """No ref leads to what was brought by its commit, nor to what stays when the one that a ref meant is evicted."""
    for root, commit in ((mounts.local, COMMIT), (mounts.a, OTHER_COMMIT)):
        write_cache(root, "org/name", commit, model_files(), ref=None)
    write_cache(mounts.a, "org/other", COMMIT, model_files())
    (mounts.a / f"models--org--name/snapshots/{COMMIT}").mkdir()  # of which there is nothing
    hint = mounts.search(wanted).miss().hint
    assert f"local has it as 'org/name@{COMMIT}'" in hint
    assert f"shared:{mounts.a} has it as 'org/name@{OTHER_COMMIT}'" in hint
    assert "Nearest: 'org/other'" in hint


def test_a_root_that_is_not_there_is_a_miss(mounts: Mounts) -> None:
    found = mounts.search("org/name")
    assert (found.found, found.silent) == (None, ())


def test_a_mount_that_hangs_delays_nothing_that_is_local_and_else_five_seconds(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cache(mounts.local, "org/here", COMMIT, model_files())
    there = write_cache(mounts.b, "org/there", COMMIT, model_files())
    mounts.a.mkdir()
    asked, never = threading.Event(), threading.Event()
    find = Root.find

    def hang(self: Root, *arguments: object, **keywords: object) -> object:
        if self.path == str(mounts.a):
            asked.set()
            never.wait()
        return find(self, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(Root, "find", hang)
    assert mounts.find("org/here")[0] == "local"
    assert not asked.is_set(), "nor was it waited for"
    with Stopwatch() as watch:
        found = mounts.search("org/there")
    assert PATIENCE_S < 5, "as promised, with time for what else is to be done"
    assert watch.seconds < PATIENCE_S + 4, "on a machine that is busy"
    assert found.found is not None
    assert found.found.folder == str(there)
    assert found.silent == ((shared_tier(str(mounts.a)), "no answer within 4 s"),)
    never.set()


def test_a_manifest_is_completeness(mounts: Mounts) -> None:
    snapshot = write_cache(mounts.local, "org/name", COMMIT, model_files())
    (snapshot / SHARD).unlink()
    manifests = snapshot.parent.parent / ".fastload/manifests"
    manifests.mkdir(parents=True)
    (manifests / f"{COMMIT}.json").write_text(json.dumps({}))  # what is in it is the loader's business
    found = mounts.search("org/name").found
    assert found is not None
    assert found.judged_by == "manifest"
