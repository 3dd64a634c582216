"""Names in hostile files lead out of the model's folder: nothing out there is opened.

Nor is anything written but below the local tier. What lies out there is a valid model, so that whoever went there would
load it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fastload
from results import Row
from stored_models import COMMIT, write_cache, write_download_metadata, write_folder, write_tree
from writing import INDEX_NAME, one_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workers import Worker

_OPENED = re.compile(r"open(?:at)?\(.*?, (?P<flags>O_[A-Z_|]+).*\) = \d+<(?P<path>[^>]*)>")
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
_OURS = ("/dev/null", "/proc/", "/dev/shm/", "pipe:", "socket:")
_SHARD = "model.safetensors"
_VERBS = (("load",), ("inspect",), ("verify",), ("verify", "--repair"), ("verify", "--record"), ("warm",))


@dataclass(frozen=True)
class _Place:
    """Where one hostile model is."""

    folder: Path

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    @property
    def mount(self) -> Path:
        return self.folder / "mount"

    @property
    def out_there(self) -> str:
        """From a folder of the mount."""
        return "../../outside/" + _SHARD


def _by_index(place: _Place) -> str:
    write_folder(place.mount / "model", {_SHARD: one_tensor(), INDEX_NAME: _index(place.out_there)})
    return "model"


def _by_absolute_index(place: _Place) -> str:
    write_folder(place.mount / "model", {_SHARD: one_tensor(), INDEX_NAME: _index(str(place.outside / _SHARD))})
    return "model"


def _by_manifest(place: _Place) -> str:
    folder = write_folder(place.mount / "model", {_SHARD: one_tensor()})
    fastload.verify(folder, record=True)
    (path,) = (folder / ".fastload/manifests").iterdir()
    path.write_text(path.read_text().replace(f'"{_SHARD}"', f'"{place.out_there}"'))
    return "model"


def _by_ref(place: _Place) -> str:
    write_cache(place.mount, "org/name", COMMIT, {_SHARD: one_tensor()})
    (place.mount / "models--org--name/refs/main").write_text("../../../outside")
    return "org/name"


def _by_link(place: _Place) -> str:
    snapshot = write_cache(place.mount, "org/name", COMMIT, {_SHARD: one_tensor()})
    (snapshot / _SHARD).unlink()
    (snapshot / _SHARD).symlink_to(os.path.relpath(place.outside / _SHARD, snapshot))
    return f"org/name@{COMMIT}"


def _by_linked_config(place: _Place) -> str:
    snapshot = write_cache(place.mount, "org/name", COMMIT, {_SHARD: one_tensor()})
    (snapshot / "config.json").symlink_to(os.path.relpath(place.outside / "config.json", snapshot))
    return f"org/name@{COMMIT}"


def _repo(place: _Place) -> Path:
    return place.mount / "models--org--name"


def _by_linked(what: str) -> Callable[[_Place], str]:
    """A file or folder of a repo, whose content lies outside and is linked to."""

    def lead(place: _Place) -> str:
        files = {_SHARD: one_tensor(), "config.json": b"{}"}
        write_tree(write_cache(place.mount, "org/name", COMMIT, files), files)
        options = fastload.Options(local=str(place.mount), tiers=("local",))
        fastload.verify("org/name", record=True, options=options)
        inside, moved = _repo(place) / what, place.outside / "moved"
        if not inside.exists():
            inside.parent.mkdir(exist_ok=True)
            inside.mkdir()
        inside.rename(moved)
        inside.symlink_to(moved)
        return "org/name"

    lead.__name__ = f"_by_linked {what or 'repo'}"
    return lead


def _by_linked_plain(place: _Place) -> str:
    place.mount.mkdir()
    (place.mount / "model").symlink_to(place.outside)
    return "model"


def _by_linked_notes(what: str) -> Callable[[_Place], str]:
    """Of a plain folder: what fastload and the hub's client keep there."""

    def lead(place: _Place) -> str:
        files = {_SHARD: one_tensor(), "config.json": b"{}"}
        folder = write_folder(place.mount / "model", files)
        write_download_metadata(folder, COMMIT, files)
        fastload.verify(folder, record=True)
        moved = place.outside / "moved"
        (folder / what).rename(moved)
        (folder / what).symlink_to(moved)
        return "model"

    lead.__name__ = f"_by_linked_notes {what}"
    return lead


_IN_REPO = (
    "",
    "refs",
    "refs/main",
    "blobs",
    "snapshots",
    f"snapshots/{COMMIT}",
    "trees",
    f"trees/{COMMIT}.json",
    ".fastload",
    ".fastload/manifests",
    f".fastload/manifests/{COMMIT}.json",
    ".fastload/stamps",
    ".fastload/staging",
)
_IN_FOLDER = (
    ".cache",
    ".cache/huggingface/download",
    f".cache/huggingface/download/{_SHARD}.metadata",
    ".fastload",
    ".fastload/manifests",
)
WAYS: tuple[Callable[[_Place], str], ...] = (
    _by_index,
    _by_absolute_index,
    _by_manifest,
    _by_ref,
    _by_link,
    _by_linked_config,
    _by_linked_plain,
    *map(_by_linked, _IN_REPO),
    *map(_by_linked_notes, _IN_FOLDER),
)


def _index(shard: str) -> bytes:
    return json.dumps({"weight_map": {"x": shard}}).encode()


def lead_astray(worker: Worker, folder: Path) -> Row:
    """Each way out, for each verb."""
    row = Row(f"names that lead out of the model's folder, in {len(WAYS)} ways: what is opened, and written")
    for way in WAYS:
        place = _Place(folder / way.__name__.replace("/", "-"))
        write_folder(place.outside, {_SHARD: one_tensor(), "config.json": b"{}"})
        name = way(place)
        local = place.folder / "local"
        environ = {"FASTLOAD_LOCAL": str(local), "FASTLOAD_SHARED": str(place.mount), "FASTLOAD_TIERS": "local,shared"}
        for words in _VERBS:
            log = place.folder / "opened"
            strace = ["-y", "-o", str(log), "-e", "trace=open,openat"]
            done = worker.run(words[0], name, *words[1:], environ=environ, strace=strace)
            wrong = list(_find_wrong(log.read_text(errors="replace"), place.outside, local, worker.folder))
            if not done.is_typed:
                wrong.append(f"exit {done.code}: {done.err[-300:]}")
            row.add(f"{way.__name__}, {words}", f"exit {done.code}", "; ".join(wrong) or None)
    return row


_WRITTEN = (
    ".locks",
    "models--org--name",
    "models--org--name/snapshots",
    "models--org--name/blobs",
    "models--org--name/refs",
    "models--org--name/.fastload",
    "models--org--name/.fastload/manifests",
    "models--org--name/.fastload/stamps",
    "models--org--name/.fastload/staging",
    "models--org--name/.fastload/journals",
)
_WRITTEN_PLAIN = (".fastload", ".fastload/staging", ".fastload/manifests", ".fastload/leases", "sub")
_WRITERS = (("warm", "--to", "TO"), ("warm",), ("load", "--write-through", "on"))


def write_astray(worker: Worker, folder: Path) -> Row:
    """Links where fastload writes: nothing is written where they lead."""
    row = Row("links out of the tier where fastload writes: what is written out there")
    cases = [(what, words) for what in _WRITTEN for words in _WRITERS]
    cases += [(what, ("warm", "--plain", "TO")) for what in _WRITTEN_PLAIN]
    files = {_SHARD: one_tensor(), "sub/config.json": b"{}"}
    for number, (what, words) in enumerate(cases):
        place = _Place(folder / f"written {number}")
        place.outside.mkdir(parents=True)
        write_cache(place.mount, "org/name", COMMIT, files)
        target = place.folder / "target"
        (target / what).parent.mkdir(parents=True)
        (target / what).symlink_to(place.outside)
        environ = {
            "FASTLOAD_LOCAL": str(place.folder / "local" if "TO" in words else target),
            "FASTLOAD_SHARED": str(place.mount),
            "FASTLOAD_TIERS": "local,shared",
        }
        flags = [str(target) if word == "TO" else word for word in words[1:]]
        done = worker.run(words[0], "org/name", *flags, environ=environ)
        left = sorted(str(path.relative_to(place.outside)) for path in place.outside.rglob("*"))
        wrong = f"written: {left[:4]}" if left else None if done.is_typed else f"exit {done.code}: {done.err[-300:]}"
        row.add(f"{what}, {words}", f"exit {done.code}", wrong)
    return row


def _find_wrong(log: str, outside: Path, local: Path, own: Path) -> Iterator[str]:
    opened = [(match["flags"], match["path"]) for match in _OPENED.finditer(log)]
    assert "openat(" in log, "nothing was traced"
    for flags, path in opened:
        if path.startswith(str(outside)):
            yield f"opened {path}"
        elif _WRITES.search(flags) and not path.startswith((str(local), str(own), *_OURS)):
            yield f"written: {path}"
