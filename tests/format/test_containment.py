"""Links in a checkpoint: those of the hub's cache are followed, those that lead out are refused, and nothing hangs."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from fastload._fetch.find.model import Source
from fastload.errors import FormatError, ModelNotFoundError
from fetching import fetch
from writing import INDEX_NAME, one_tensor, write_index, write_shards

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(20)  # a FIFO that is opened never comes back

ETAG = "a" * 64


def tensors(model: Path, subfolder: str | None = None) -> list[str]:
    """The names that fastload finds in ``model``."""
    return [tensor.name for _, tensor in fetch(Source(model, subfolder)).checkpoint.tensors()]


def refusal(model: Path | str, subfolder: str | None = None) -> FormatError:
    """What fastload says about a malformed checkpoint."""
    with pytest.raises(FormatError) as caught:
        fetch(Source(model, subfolder))
    assert str(caught.value).isprintable()
    return caught.value


def make_snapshot(root: Path) -> Path:
    """A snapshot in the hub's cache layout below ``root``: one shard, which is a link to its blob."""
    repo = root / "models--org--name"
    snapshot = repo / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "blobs" / ETAG).write_bytes(one_tensor("a"))
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{ETAG}")
    return snapshot


# --- the hub's cache -----------------------------------------------------------------------------------------------


def test_a_snapshot_of_links_to_blobs_is_read(tmp_path: Path) -> None:
    assert tensors(make_snapshot(tmp_path)) == ["a"]


def test_a_blob_may_be_a_link_to_elsewhere_in_the_cache(tmp_path: Path) -> None:
    """As the hub's client does where two repos share a file: blobs/<etag> -> <cache>/blobs/<2 hex>/<hash>."""
    snapshot = make_snapshot(tmp_path)
    blob = tmp_path / "models--org--name" / "blobs" / ETAG
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    blob.rename(tmp_path / "blobs" / "ab" / "hash")
    blob.symlink_to("../../blobs/ab/hash")
    assert tensors(snapshot) == ["a"]


def test_the_index_and_a_subfolder_of_a_snapshot_may_be_links_to_blobs_too(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path)
    index = write_index(tmp_path / "models--org--name" / "blobs", {"a": "x.safetensors"})
    (snapshot / "text" / "deep").mkdir(parents=True)
    (snapshot / "text" / "deep" / INDEX_NAME).symlink_to(f"../../../../blobs/{index.name}")
    (snapshot / "text" / "deep" / "x.safetensors").symlink_to(f"../../../../blobs/{ETAG}")
    assert tensors(snapshot, "text/deep") == ["a"]
    assert tensors(snapshot / "text" / "deep" / INDEX_NAME) == ["a"]


def test_a_snapshot_may_be_reached_by_a_link(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "cache")
    (tmp_path / "current").symlink_to(snapshot)
    assert tensors(tmp_path / "current") == ["a"]


def test_the_cache_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    make_snapshot(tmp_path / "disk" / "hub")
    (tmp_path / "hub").symlink_to(tmp_path / "disk" / "hub")
    assert tensors(tmp_path / "hub" / "models--org--name" / "snapshots" / "c0ffee") == ["a"]


def test_a_cache_whose_path_holds_a_newline_is_a_cache(tmp_path: Path) -> None:
    assert tensors(make_snapshot(tmp_path / "a\nb")) == ["a"]


def test_a_snapshot_that_leads_out_of_its_cache_is_refused(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "cache")
    (tmp_path / "secret.safetensors").write_bytes(one_tensor())
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(tmp_path / "secret.safetensors")
    error = refusal(snapshot)
    assert error.path == str(snapshot / "model.safetensors")
    assert "secret" in error.found
    assert str(tmp_path / "cache") in error.expected


def test_a_snapshot_below_the_root_of_the_file_system_is_contained_by_all_of_it() -> None:
    """A volume may be mounted at /models--org--name."""
    from fastload._store.directory import containment_root

    assert containment_root("/models--org--name/snapshots/c0ffee") == "/"
    assert os.path.commonpath(["/models--org--name/blobs/x", "/"]) == "/"


# --- plain folders -------------------------------------------------------------------------------------------------


def test_links_inside_a_folder_are_read(tmp_path: Path) -> None:
    write_shards(tmp_path, {"data/x.safetensors": ["a"]})
    (tmp_path / "model.safetensors").symlink_to("data/x.safetensors")
    assert tensors(tmp_path) == ["a"]


def test_a_file_or_an_index_that_is_named_may_be_a_link_to_anywhere(tmp_path: Path) -> None:
    """Who names a link means its target."""
    (tmp_path / "model").mkdir()
    write_shards(tmp_path, {"elsewhere.safetensors": ["a"]})
    link = tmp_path / "model" / "model.safetensors"
    link.symlink_to("../elsewhere.safetensors")
    assert tensors(link) == ["a"]


@pytest.mark.parametrize("target", ["../secret.safetensors", "../model-2/x.safetensors", "{tmp}/secret.safetensors"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    """``model-2`` begins with the folder's name, and is another folder all the same."""
    write_shards(tmp_path, {"secret.safetensors": ["a"], "model-2/x.safetensors": ["a"]})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to(target.format(tmp=tmp_path))
    assert "a link to" in refusal(tmp_path / "model").found


def test_a_folder_on_the_way_to_a_shard_must_not_lead_out_either(tmp_path: Path) -> None:
    write_shards(tmp_path, {"outside/x.safetensors": ["a"]})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "sub").symlink_to("../outside")
    write_index(tmp_path / "model", {"a": "sub/x.safetensors"})
    assert "outside" in refusal(tmp_path / "model").found


def test_an_index_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, {"model/x.safetensors": ["a"]})
    outside = write_index(tmp_path, {"a": "x.safetensors"}, "outside.json")
    (tmp_path / "model" / INDEX_NAME).symlink_to(outside)
    assert "a link to" in refusal(tmp_path / "model").found


def test_a_subfolder_that_is_a_link_out_of_the_model_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, {"outside/model.safetensors": ["a"]})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "unet").symlink_to("../outside")
    assert "a link to" in refusal(tmp_path / "model", "unet").found


def test_a_subfolder_that_is_a_link_inside_the_model_is_read(tmp_path: Path) -> None:
    write_shards(tmp_path, {"v2/model.safetensors": ["a"]})
    (tmp_path / "unet").symlink_to("v2")
    assert tensors(tmp_path, "unet") == ["a"]


# --- what is no file -----------------------------------------------------------------------------------------------


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the path of a socket must be short
        server.bind(path.name)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_loop_of_two(path: Path) -> None:
    path.symlink_to("other")
    (path.parent / "other").symlink_to(path.name)


def make_dangling(path: Path) -> None:
    path.symlink_to("gone")


def make_dangling_chain(path: Path) -> None:
    path.symlink_to("other")
    (path.parent / "other").symlink_to("gone\n")


def make_link_to_fifo(path: Path) -> None:
    os.mkfifo(path.parent / "fifo")
    path.symlink_to("fifo")


NO_FILES = {
    "a FIFO": (make_fifo, "a named pipe (FIFO)"),
    "a folder": (make_folder, "a folder"),
    "a socket": (make_socket, "a socket"),
    "a link to itself": (make_loop, "in a circle"),
    "two links to one another": (make_loop_of_two, "in a circle"),
    "a dangling link": (make_dangling, "where nothing is"),
    "a dangling chain of links": (make_dangling_chain, "where nothing is"),
    "a link to a FIFO": (make_link_to_fifo, "a named pipe (FIFO)"),
}


@pytest.mark.parametrize("case", NO_FILES)
@pytest.mark.parametrize("how", ["in a folder", "by an index", "named"])
def test_a_shard_that_is_no_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, how: str
) -> None:
    make, found = NO_FILES[case]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.safetensors")
    if how == "by an index":
        write_index(tmp_path, {"a": "x.safetensors"})
    error = refusal(tmp_path / "x.safetensors" if how == "named" and case != "a folder" else tmp_path)
    assert found in error.found
    assert error.path == str(tmp_path / "x.safetensors")


@pytest.mark.parametrize("case", NO_FILES)
def test_an_index_that_is_no_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make, found = NO_FILES[case]
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path, {"x.safetensors": ["a"]})
    make(tmp_path / INDEX_NAME)
    assert found in refusal(tmp_path).found


@pytest.mark.parametrize("case", sorted(NO_FILES.keys() - {"a folder"}))
def test_a_path_to_no_file_says_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Whatever it is called: only the name of a regular file tells what is in it."""
    make, found = NO_FILES[case]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "model")
    assert found in refusal(tmp_path / "model").found


def test_a_path_to_a_device_says_so() -> None:
    assert refusal("/dev/null").found == "a character device"


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_is_refused_at_once(tmp_path: Path, device: str) -> None:
    link = tmp_path / "x.safetensors"
    link.symlink_to(device)
    assert "a character device" in refusal(link).found
    assert "a link to" in refusal(tmp_path).found


def test_a_folder_that_is_called_like_a_shard_hides_no_tensors(tmp_path: Path) -> None:
    """Leaving it out would load half a model without a word."""
    write_shards(tmp_path, {"a.safetensors": ["a"]})
    (tmp_path / "b.safetensors").mkdir()
    assert "a folder" in refusal(tmp_path).found


@pytest.mark.parametrize("make", [make_dangling, make_loop])
def test_a_model_that_is_a_link_to_nowhere_says_so(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "model")
    assert "a link to" in (found := refusal(tmp_path / "model").found) or "links that" in found


def test_a_model_behind_a_file_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelNotFoundError):
        fetch(Source(tmp_path / "file" / "model"))
