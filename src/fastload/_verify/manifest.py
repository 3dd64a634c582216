"""The manifest: every file of a snapshot with its size and digests, block by block.

::

    {"commit": "…40 hex…", "files": [{"blocks": ["…64 hex…", …], "git_sha1": "…", "path": "config.json", "sha256": "…",
     "size": 683}, …], "repo": "org/name", "schema": 1, "source": "hub"}

It is evidence, and lies on shared mounts that others write to, so parsing is total: bytes either are, to the last one,
what :func:`dump_manifest` writes for some :class:`Manifest`, or they are refused. One manifest has one spelling, and no
two readers can see different files in it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeGuard

from blake3 import blake3

from fastload._json_outline import Density
from fastload._verify.canonical import MAX_INTEGER, canonical_json
from fastload._verify.digest import BLOCK_BYTES, count_blocks
from fastload._verify.path import PathError, check_path_in_snapshot, check_paths_fit
from fastload.errors import FormatError, UnsupportedError, quoted
from fastload.strict_json import JsonError, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA = 1
MAX_MANIFEST_BYTES = 64 << 20  # 64 MiB
"""Enough for 4 TB of weights. Compare a file's size with it before its bytes are read."""

_DENSITY = Density(value_bytes=16, object_bytes=96)
"""No manifest has more values (a block has 67 bytes, a digest of git's 55), nor objects (an entry of an empty file has
109)."""
_KEYS = frozenset({"schema", "repo", "commit", "source", "files"})
_FILE_KEYS = frozenset({"path", "size", "sha256", "blocks"})
_OPTIONAL_FILE_KEYS = frozenset({"git_sha1"})
_MAX_TEXT_CHARS = 4096
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and what UTF-8 cannot spell."""
_TEXT = f"a text of 1 to {_MAX_TEXT_CHARS} characters on one line, in UTF-8"
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA256_DIGITS = 64
_HEX_DIGITS = b"0123456789abcdef"
_COMMIT_DIGITS = 40
_HINT = "It is damaged, or fastload did not write it. Remove it, then run: fastload verify NAME --record"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of a snapshot."""

    path: str
    """Relative to the snapshot, with ``/``."""
    size: int
    sha256: str
    git_sha1: str | None
    """``sha1("blob <size>\\0" + content)``; None for files that git would not hold."""
    blocks: tuple[str, ...]
    """BLAKE3 of each block."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one snapshot."""

    repo: str
    commit: str
    source: str
    """Where the bytes came from."""
    files: tuple[ManifestFile, ...]
    """Sorted by path (by code points, which is the order of its UTF-8 bytes)."""

    def find(self, path: str) -> ManifestFile | None:
        """The file at ``path``, if there is one."""
        place = bisect_left(self.files, path, key=attrgetter("path"))
        found = self.files[place] if place < len(self.files) else None
        return found if found is not None and found.path == path else None


def dump_manifest(manifest: Manifest) -> bytes:
    """The bytes of the file: RFC 8785, no final newline.

    Raises:
        FormatError: its repo or its source is a name that :func:`parse_manifest` refuses.
    """
    for name in (manifest.repo, manifest.source):
        check_name(name, name)
    return canonical_json(
        {
            "schema": SCHEMA,
            "repo": manifest.repo,
            "commit": manifest.commit,
            "source": manifest.source,
            "files": [_file_document(file) for file in manifest.files],
        }
    )


def check_name(name: str, path: str) -> None:
    """Check that a manifest can hold ``name``, as what the folder ``path`` is called.

    Raises:
        FormatError: it cannot.
    """
    if not _is_text(name):
        raise FormatError(path, "a name that no manifest can hold", _TEXT, hint="Rename the folder")


def _file_document(file: ManifestFile) -> dict[str, Any]:
    document = {"path": file.path, "size": file.size, "sha256": file.sha256, "blocks": file.blocks}
    return document if file.git_sha1 is None else {**document, "git_sha1": file.git_sha1}


def plain_commit(files: Iterable[ManifestFile]) -> str:
    """The commit of a plain folder: the same files give the same one, on every machine."""
    listed = sorted((file.path, file.size, file.sha256) for file in files)
    return blake3(canonical_json(listed)).hexdigest()[:_COMMIT_DIGITS]


def parse_manifest(raw: bytes, *, path: str) -> Manifest:
    """The manifest spelled by ``raw``; ``path`` is where it lies, for messages.

    Raises:
        FormatError: it is not, byte by byte, what :func:`dump_manifest` writes.
        UnsupportedError: another version of fastload wrote it in a schema of its own.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise _refusal(path, f"{len(raw):,} bytes", f"at most {MAX_MANIFEST_BYTES:,}")
    manifest = _build_manifest(_parse_document(raw, path), path)
    if dump_manifest(manifest) != raw:
        raise _refusal(path, "JSON in another spelling", "the canonical one (RFC 8785)")
    return manifest


def _refusal(path: str, found: str, expected: str) -> FormatError:
    return FormatError(path, found, expected, hint=_HINT)


def _parse_document(raw: bytes, path: str) -> dict[str, Any]:
    try:
        document = parse_json(raw, density=_DENSITY)
    except JsonError as exc:
        raise _refusal(path, str(exc), "canonical JSON") from exc
    if type(document) is not dict:
        raise _refusal(path, "JSON that is no object", "an object")
    return document


def _build_manifest(document: dict[str, Any], path: str) -> Manifest:
    schema = document.get("schema")
    if type(schema) is int and schema != SCHEMA:
        raise UnsupportedError(
            f"{quoted(path)} is a manifest of schema {schema}; this fastload reads schema {SCHEMA}",
            "Use the version of fastload that wrote it, or a later one",
        )
    _check_keys(document, _KEYS, frozenset(), "the manifest", path)
    if type(schema) is not int:
        raise _refusal(path, "a schema that is no number", str(SCHEMA))
    if type(document["files"]) is not list:
        raise _refusal(path, "files that are no array", "an array of files")
    files = tuple(_parse_file(entry, path) for entry in document["files"])
    _check_order(files, path)
    return Manifest(
        repo=_parse_text(document, "repo", path),
        commit=_parse_hex(document["commit"], _SHA1, "commit", path),
        source=_parse_text(document, "source", path),
        files=files,
    )


def _check_keys(
    entry: Mapping[str, Any], needed: frozenset[str], optional: frozenset[str], owner: str, path: str
) -> None:
    missing, unknown = sorted(needed - entry.keys()), sorted(entry.keys() - needed - optional)
    if missing:
        raise _refusal(path, f"{owner} without {' and '.join(missing)}", ", ".join(sorted(needed)))
    if unknown:
        raise _refusal(path, f"{owner} with the key {quoted(unknown[0])}", ", ".join(sorted(needed | optional)))


def _parse_text(document: Mapping[str, Any], key: str, path: str) -> str:
    text = document[key]
    if not _is_text(text):
        raise _refusal(path, f"a {key} that is none", _TEXT)
    return text


def _is_text(value: Any) -> TypeGuard[str]:
    return type(value) is str and 0 < len(value) <= _MAX_TEXT_CHARS and not _NO_TEXT.search(value)


def _parse_hex(value: Any, pattern: re.Pattern[str], what: str, path: str) -> str:
    if type(value) is not str or not pattern.fullmatch(value):
        found = quoted(value) if type(value) is str else "something that is no text"
        raise _refusal(path, f"{what}: {found}", "lower-case hex digits, as many as it has")
    return value


def _parse_file(entry: Any, path: str) -> ManifestFile:
    if type(entry) is not dict:
        raise _refusal(path, "a file that is no object", ", ".join(sorted(_FILE_KEYS)))
    _check_keys(entry, _FILE_KEYS, _OPTIONAL_FILE_KEYS, "a file", path)
    name, size, blocks = entry["path"], entry["size"], entry["blocks"]
    try:
        check_path_in_snapshot(name)
    except PathError as exc:
        raise _refusal(path, str(exc), "a path that stays in the snapshot") from exc
    if type(size) is not int or size > MAX_INTEGER:  # a negative one or a fraction is no int here
        raise _refusal(path, f"a size of {quoted(name)} that is none", "an integer from 0 to 2^53-1")
    if type(blocks) is not list or len(blocks) != count_blocks(size):
        found = f"{len(blocks):,} blocks" if type(blocks) is list else "blocks that are no array"
        raise _refusal(
            path, f"{found} of {quoted(name)}", f"{count_blocks(size):,}, one for each {BLOCK_BYTES:,} bytes"
        )
    owner = f" of {quoted(name)}"
    return ManifestFile(
        path=name,
        size=size,
        sha256=_parse_hex(entry["sha256"], _SHA256, "sha256" + owner, path),
        git_sha1=_parse_hex(entry["git_sha1"], _SHA1, "git_sha1" + owner, path) if "git_sha1" in entry else None,
        blocks=_parse_blocks(blocks, owner, path),
    )


def _parse_blocks(blocks: list[Any], owner: str, path: str) -> tuple[str, ...]:
    """Looked at all at once, since a large model has tens of thousands: which one is wrong is told apart then."""
    if {*map(type, blocks)} <= {str} and {*map(len, blocks)} <= {_SHA256_DIGITS}:
        others = "".join(blocks).encode("ascii", "replace").translate(None, _HEX_DIGITS)
        if not others:
            return tuple(blocks)
    return tuple(_parse_hex(block, _SHA256, "a block" + owner, path) for block in blocks)


def _check_order(files: tuple[ManifestFile, ...], path: str) -> None:
    if not files:
        raise _refusal(path, "no files", "at least one")  # it would make an empty folder a complete snapshot
    try:
        check_paths_fit([file.path for file in files])
    except PathError as exc:
        raise _refusal(path, str(exc), "each path once, sorted, and no file that is a folder too") from exc
