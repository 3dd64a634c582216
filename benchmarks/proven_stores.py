"""One checkpoint among each kind of evidence: the same files, by hard links, and a hub on loopback that gives them.

One copy is made, because links to the model's own files would change their ctime under whoever loads them.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fastload
from fastload import Options
from fastload._verify.digest import BLOCK_BYTES, SMALL_FILE_BYTES, ContentHash
from fastload.ops.bench.files import Files, Trial, list_files
from hub_process import REPO, TESTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_COMMIT = "c0ffee" * 6 + "abcd"


@dataclass(frozen=True, slots=True)
class Stores:
    """What is loaded, by the kind of evidence."""

    trials: Mapping[str, Trial]
    left_out: Mapping[str, str]
    """Kinds of which there is none here, and why."""


def make_stores(model: Path, temporary: Path, warm_up: Path) -> Stores:
    """The files of ``model`` among each kind of evidence; ``warm_up``, which all load first, is signed too."""
    plain = temporary / "plain"
    plain.mkdir()
    digests: dict[str, ContentHash] = {}
    for path in sorted(model.glob("*.safetensors*")):
        shutil.copyfile(path, plain / path.name)
        digests[path.name] = _digest(plain / path.name)
    by_sha256 = {name: digest.sha256 for name, digest in digests.items()}
    cached, warmed = (_write_cache(plain, temporary / kind, by_sha256) for kind in ("sha256", "manifest"))
    downloaded, recorded = (_link_folder(plain, temporary / kind) for kind in ("etag", "recorded"))
    _write_notes(downloaded, by_sha256)
    for folder in (warmed, recorded):
        fastload.verify(folder, record=True)
    folders = {"none": plain, "manifest": warmed, "manifest (recorded)": recorded, "sha256": cached, "etag": downloaded}
    trials = {kind: Trial(list_files(str(folder))) for kind, folder in folders.items()}
    trials["listing"] = Trial(
        Files(REPO, list_files(str(plain)).paths), options={"tiers": "hub", "write_through": "off"}
    )
    left_out = {}
    if max(path.stat().st_size for path in plain.iterdir()) <= SMALL_FILE_BYTES:
        by_sha1 = {name: digest.git_sha1 or "" for name, digest in digests.items()}
        trials["git-sha1"] = Trial(list_files(str(_write_cache(plain, temporary / "git-sha1", by_sha1))))
    else:
        left_out["git-sha1"] = (
            "no hub keeps files of more than 64 MiB in git itself: make_checkpoint.py --shard-gib 0.03"
        )
    trials |= _sign(_link_folder(plain, temporary / "signature"), by_sha256, warm_up)
    return Stores(trials, left_out)


def _digest(path: Path) -> ContentHash:
    content = ContentHash(path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(BLOCK_BYTES):
            content.update(piece)
    return content


def _write_cache(plain: Path, root: Path, blobs: Mapping[str, str]) -> Path:
    """The hub's cache layout, with blobs of these names; the folder of its snapshot."""
    repo = root / "models--bench--model"
    snapshot = repo / "snapshots" / _COMMIT
    (repo / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, blob in blobs.items():
        os.link(plain / name, repo / "blobs" / blob)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return snapshot


def _link_folder(plain: Path, folder: Path) -> Path:
    shutil.copytree(plain, folder, copy_function=os.link)
    return folder


def _write_notes(folder: Path, etags: Mapping[str, str]) -> None:
    """Those of ``hf download --local-dir``."""
    for name, etag in etags.items():
        notes = folder / ".cache/huggingface/download" / f"{name}.metadata"
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text(f"{_COMMIT}\n{etag}\n1.0\n")


def _sign(folder: Path, by_sha256: Mapping[str, str], warm_up: Path) -> dict[str, Trial]:
    """By its signature alone, and by the blocks of a manifest that is kept apart."""
    sys.path.append(str(TESTS))
    from signing import bundle_of, key_of, pem_of, resource, statement_of

    entries = [resource(name, digest=digest) for name, digest in sorted(by_sha256.items())]
    (folder / "model.sig").write_bytes(bundle_of(statement_of(entries)))
    few = [resource(path.name, digest=_digest(path).sha256) for path in sorted(warm_up.iterdir())]
    (warm_up / "model.sig").write_bytes(bundle_of(statement_of(few)))
    key = folder.parent / "key.pem"
    key.write_bytes(pem_of(key_of()))
    alone = {"signature_key": str(key)}
    kept = {**alone, "manifests": str(folder.parent / "manifests")}
    fastload.verify(folder, record=True, options=Options(**kept))
    files = list_files(str(folder))
    return {"signature": Trial(files, options=alone), "signature, kept": Trial(files, options=kept)}
