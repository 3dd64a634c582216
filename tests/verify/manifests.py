"""Manifests to test with, and what is said about bytes that are none."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import strategies as st

from fastload._verify.digest import BLOCK_BYTES, ContentHash, block_digest, count_blocks
from fastload._verify.manifest import Manifest, ManifestFile, parse_manifest
from fastload._verify.path import PathError, check_path_in_snapshot, check_paths_fit
from fastload.errors import FastloadError

PATH = "/m/models--org--name/.fastload/manifests/0.json"


def file_of(path: str, content: bytes, *, is_small: bool = True) -> ManifestFile:
    """The entry of a file with that content."""
    digests = ContentHash(len(content))
    digests.update(content)
    blocks = tuple(block_digest(content[at : at + BLOCK_BYTES]) for at in range(0, len(content), BLOCK_BYTES))
    return ManifestFile(path, len(content), digests.sha256, digests.git_sha1 if is_small else None, blocks)


def document_of(**changes: Any) -> dict[str, Any]:
    """A valid manifest as JSON, with ``changes``."""
    files = [file_document(), file_document(path="model.safetensors", size=BLOCK_BYTES + 1, blocks=["cd" * 32] * 2)]
    return {"schema": 1, "repo": "org/name", "commit": "0" * 40, "source": "hub", "files": files, **changes}


def file_document(**changes: Any) -> dict[str, Any]:
    """A valid file of a manifest as JSON, with ``changes``."""
    return {"path": "config.json", "size": 7, "sha256": "ab" * 32, "blocks": ["cd" * 32], **changes}


def refusal(raw: bytes) -> FastloadError:
    """What is said about it."""
    with pytest.raises(FastloadError) as caught:
        parse_manifest(raw, path=PATH)
    assert len(str(caught.value)) < 2000
    return caught.value


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _fits(files: list[ManifestFile]) -> bool:
    try:
        check_paths_fit([file.path for file in files])
    except PathError:
        return False
    return True


def _is_path(path: str) -> bool:
    try:
        check_path_in_snapshot(path)
    except PathError:
        return False
    return True


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
PATHS = st.lists(TEXTS, min_size=1, max_size=4).map("/".join).filter(_is_path)


@st.composite
def manifest_files(draw: st.DrawFn) -> ManifestFile:
    """A file of up to three blocks, or of many. Their digests are no file's: only their number can be checked."""
    size = draw(st.integers(0, 3 * BLOCK_BYTES) | st.sampled_from([0, BLOCK_BYTES, BLOCK_BYTES + 1, 500 * BLOCK_BYTES]))
    seed = draw(st.text(max_size=3))
    blocks = tuple(_digest(f"{seed}{number}", 64) for number in range(count_blocks(size)))
    sha1 = _digest(seed, 40) if draw(st.booleans()) else None
    return ManifestFile(draw(PATHS), size, _digest(seed, 64), sha1, blocks)


MANIFESTS = st.builds(
    Manifest,
    repo=TEXTS,
    commit=st.integers(0, (1 << 160) - 1).map("{:040x}".format),
    source=TEXTS,
    files=st.lists(manifest_files(), min_size=1, max_size=6, unique_by=lambda file: file.path)
    .map(lambda files: sorted(files, key=lambda file: file.path))
    .filter(_fits)
    .map(tuple),
)
