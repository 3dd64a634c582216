"""What is noted beside files, read with suspicion: whoever can write there can write anything."""

from __future__ import annotations

import json
import os
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from fastload._store.admit.stamp import read_noted
from fastload._store.folder_stamp import look_at_times
from fastload._store.keep.mark import find_damaged
from fastload._store.layout import RepoLayout
from fastload._store.listing import read_tree
from fastload._store.manifest_folder import ManifestFolder
from fastload._store.note import read_note
from fastload._store.stored import PlainFolder
from fastload._tier import PATH
from fastload._verify.manifest import Manifest, ManifestFile, plain_commit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMIT = "ab" * 20
FLOODS = {
    "empty arrays": b"[],",
    "empty objects": b"{},",
    "small arrays": b"[[],0],",
    "small texts": b'"aa",',
    "chains of objects": b'{"a":' * 90 + b"0" + b"}" * 90 + b",",
}
HEADS = (b'{"schema": 1, "format_version": 1, "mtime_ns": 0, "files": {"a": [', b"0]}}")


def flood(piece: bytes) -> bytes:
    """2 MiB of JSON that is a note but for what is in it."""
    head, tail = HEADS
    return head + piece * ((2 << 20) // len(piece)) + tail


def peak_bytes(read: Callable[[], object]) -> int:
    """How much memory it takes, at its most."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write(path: Path | str, raw: bytes) -> None:
    """With the folders above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(raw)


def read_stamp(folder: Path, raw: bytes) -> Any:
    """As the stamp of a snapshot."""
    path = RepoLayout(str(folder)).stamp(COMMIT)
    write(path, raw)
    return read_noted(path)


def read_mark(folder: Path, raw: bytes) -> Any:
    """As its marks."""
    layout = RepoLayout(str(folder))
    write(layout.mark(COMMIT), raw)
    return find_damaged(layout, COMMIT)


def read_listing(folder: Path, raw: bytes) -> Any:
    """As a listing of the hub's client."""
    write(folder / "trees.json", raw)
    return read_tree(str(folder / "trees.json"))


def read_folder_stamp(folder: Path, raw: bytes) -> Any:
    """As the stamp of a plain folder."""
    write(folder / ".fastload" / "stamps" / f"{COMMIT}.json", raw)
    os.utime(folder / ".fastload" / "stamps" / f"{COMMIT}.json", ns=(0, 0))
    _, is_noted = look_at_times(str(folder), Manifest("a", COMMIT, "b", ()))
    return is_noted


def read_kept_stamp(folder: Path, raw: bytes) -> Any:
    """As the stamp of a manifest in ``manifests``."""
    files = (ManifestFile("a.safetensors", 0, "ab" * 32, None, ()),)
    stored = PlainFolder(tier=PATH, repo="a", commit=None, folder=str(folder), missing=())
    kept = ManifestFolder(str(folder / "kept"))
    kept.keep(stored, Manifest("a", plain_commit(files), "b", files), ())
    (path,) = (folder / "kept" / str(os.geteuid())).glob("*.stamp.json")
    path.write_bytes(raw)
    return kept.find(stored)


@pytest.mark.parametrize("piece", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("read", [read_stamp, read_mark, read_listing, read_folder_stamp, read_kept_stamp])
def test_a_note_full_of_values_that_none_needs_is_not_parsed(
    tmp_path: Path, read: Callable[[Path, bytes], Any], piece: bytes
) -> None:
    """They would take up to fifty times its bytes; the counting takes a few copies of it."""
    raw = flood(piece)
    found: list[Any] = []
    assert peak_bytes(lambda: found.append(read(tmp_path, raw))) < 4 * len(raw)
    assert found in ([None], [{}], [()], [False])


def test_the_densest_notes_that_are_written_are_no_such_flood(tmp_path: Path) -> None:
    """Of many empty files in one folder, from an archive without times."""
    names = [f"shard-{number:05}" for number in range(20_000)]
    look = {"dev": 1, "ino": 1, "size": 0, "mtime_ns": 0, "ctime_ns": 0, "source": [0, None]}
    for each in ([0, 0], [1_234_567, 4096, 0], look):
        raw = json.dumps({"schema": 1, "files": dict.fromkeys(names, each), "wish": {}}, sort_keys=True).encode()
        assert len(read_stamp(tmp_path, raw) if each is look else read_note_of(tmp_path, raw)["files"]) == len(names)
    entry = {"size": 0, "blob_id": "ab" * 20}
    for separators in ((", ", ": "), (",", ":")):
        tree = {"format_version": 1, "files": {f"{number:x}": entry for number in range(20_000)}}
        listed = read_listing(tmp_path, json.dumps(tree, separators=separators).encode())
        assert len(listed) == len(names)


def read_note_of(folder: Path, raw: bytes) -> dict[str, Any]:
    """Any note."""
    write(folder / "note.json", raw)
    note = read_note(str(folder / "note.json"))
    assert note is not None
    return note


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"a":1,"a":2}', b"\xff"])
def test_what_is_no_note_says_nothing(tmp_path: Path, raw: bytes) -> None:
    write(tmp_path / "note.json", raw)
    assert read_note(str(tmp_path / "note.json")) is None


def test_what_is_no_file_or_too_large_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "note.json", b'{"a": 1}')
    assert [read_note(str(tmp_path / name)) for name in (".", "gone", "pipe")] == [None, None, None]
    assert read_note(str(tmp_path / "note.json")) == {"a": 1}
    assert read_note(str(tmp_path / "note.json"), max_bytes=7) is None
