"""What was signed: the in-toto statement of an OpenSSF Model Signing bundle.

::

    {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://model_signing/signature/v1.0",
     "subject": [{"name": "llama", "digest": {"sha256": "…over the digests of all resources, in their order…"}}],
     "predicate": {"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": false,
                                     "ignore_paths": [".git", "model.sig", …]},
                   "resources": [{"name": "config.json", "algorithm": "sha256", "digest": "…"}, …]}}

With the method ``shards`` a resource is a piece of a file, named ``model.safetensors:0:1000000000``; its algorithm is
``sha256`` in the specification and ``sha256-sharded-1000000000`` where model-signing writes it. ``allow_symlinks`` is
not looked at, because a digest holds for bytes, wherever they lie; keys that the format may gain are passed over, as it
asks. What was signed before there was this format is read as :mod:`~fastload._verify.older_statement` says.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fastload._verify.fields import as_array, as_object, as_text, check_is, parse_document, refusal
from fastload._verify.older_statement import OLDER_PREDICATE, as_predicate
from fastload._verify.path import PathError, check_path_in_snapshot, check_paths_fit
from fastload.errors import quoted
from fastload.strict_json import OddNumber

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_RESIGN = "Do not use the model; where it is to be trusted, sign the model anew, by model-signing 1.0 or later"
_DIGEST_BYTES = {"sha256": 32, "blake2b": 64, "blake3": 32}
_METHODS = ("files", "shards")
_SHARD = re.compile(r"(?P<path>.+):(?P<start>0|[1-9][0-9]{0,18}):(?P<end>[1-9][0-9]{0,18})", re.DOTALL)
_WHOLE = re.compile(r"([1-9][0-9]{0,18})(?:\.0)?")
"""model-signing writes shard_size through protobuf, which knows no integers there: ``1000000000.0``."""


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file with one signed digest."""

    algorithm: str
    """``sha256``, ``blake2b`` (64 bytes) or ``blake3``."""
    digest: str
    """As lower-case hex."""


@dataclass(frozen=True, slots=True)
class SignedShard:
    """The bytes ``[start, end)`` of a file."""

    start: int
    end: int
    digest: str
    """Of these bytes alone, as lower-case hex."""


@dataclass(frozen=True, slots=True)
class ShardedFile:
    """A file whose shards are signed one by one: from 0 to its end, without gap or overlap."""

    algorithm: str
    shards: tuple[SignedShard, ...]

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return self.shards[-1].end


SignedFile = WholeFile | ShardedFile


@dataclass(frozen=True, slots=True)
class Statement:
    """A valid statement."""

    root: str
    """sha256 over the digests of all resources: names this set of files."""
    algorithm: str
    files: Mapping[str, SignedFile]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Resource:
    """An entry of the statement; a file as a whole starts and ends at 0."""

    name: str
    path: str
    start: int
    end: int
    digest: str


@dataclass(frozen=True, slots=True)
class _Serialization:
    method: str
    algorithm: str
    resource_algorithms: tuple[str, ...]
    """How a resource may spell ``algorithm``."""
    ignored: tuple[str, ...]


def parse_statement(payload: bytes, *, path: str) -> Statement:
    """The statement that ``payload`` spells; ``path`` is where its bundle lies, for messages.

    Raises:
        SignatureError: it is none, or contradicts itself.
    """
    statement = parse_document(payload, "a payload", path)
    check_is(statement.get("_type"), _STATEMENT, "the _type of the statement", path)
    is_older = statement.get("predicateType") == OLDER_PREDICATE
    predicate = as_predicate(statement, path) if is_older else _parse_predicate(statement, path)
    serialization = _parse_serialization(predicate.get("serialization"), path)
    entries = as_array(predicate.get("resources"), "resources", path)
    resources = [_parse_resource(entry, serialization, path) for entry in entries]
    root = _check_resources(resources, path)
    if not is_older:
        _check_root(statement.get("subject"), root, path)
    return Statement(root, serialization.algorithm, _build_files(resources, serialization, path), serialization.ignored)


def _parse_predicate(statement: Mapping[str, Any], path: str) -> dict[str, Any]:
    check_is(statement.get("predicateType"), _PREDICATE, "the predicateType", path, _RESIGN)
    return as_object(statement.get("predicate"), "a predicate", path)


def _parse_serialization(value: Any, path: str) -> _Serialization:
    serialization = as_object(value, "a serialization", path)
    method = as_text(serialization.get("method"), "a method", path)
    if method not in _METHODS:
        raise refusal(path, f"the method {quoted(method)}", " or ".join(_METHODS))
    algorithm = as_text(serialization.get("hash_type"), "a hash_type", path)
    if algorithm not in _DIGEST_BYTES:
        raise refusal(path, f"the hash_type {quoted(algorithm)}", " or ".join(_DIGEST_BYTES))
    spellings: tuple[str, ...] = (algorithm,)
    if method == "shards":
        spellings += (f"{algorithm}-sharded-{_parse_shard_size(serialization.get('shard_size'), path)}",)
    ignored = as_array(serialization.get("ignore_paths", []), "ignore_paths", path)
    return _Serialization(
        method, algorithm, spellings, tuple(as_text(each, "an ignored path", path) for each in ignored)
    )


def _parse_shard_size(value: Any, path: str) -> int:
    match = _WHOLE.fullmatch(str(value)) if type(value) in (int, OddNumber) else None
    if match is None:
        raise refusal(path, "a shard_size that is none", "a number of bytes")
    return int(match[1])


def _parse_resource(value: Any, serialization: _Serialization, path: str) -> _Resource:
    entry = as_object(value, "a resource", path)
    name = as_text(entry.get("name"), "the name of a resource", path)
    owner = f" of {quoted(name)}"
    algorithm = as_text(entry.get("algorithm"), "the algorithm" + owner, path)
    if algorithm not in serialization.resource_algorithms:
        raise refusal(path, f"the algorithm {quoted(algorithm)}{owner}", serialization.resource_algorithms[-1])
    digest = _parse_digest(entry.get("digest"), serialization.algorithm, "the digest" + owner, path)
    file, start, end = name, 0, 0
    if serialization.method == "shards":
        file, start, end = _parse_range(name, path)
    try:
        check_path_in_snapshot(file)
    except PathError as exc:
        raise refusal(path, str(exc), "a path that stays in the snapshot") from exc
    return _Resource(name, file, start, end, digest)


def _parse_range(name: str, path: str) -> tuple[str, int, int]:
    match = _SHARD.fullmatch(name)
    if match is None:
        raise refusal(path, f"the shard {quoted(name)}", "a path, where it starts and where it ends: 'path:0:100'")
    return match["path"], int(match["start"]), int(match["end"])


def _parse_digest(value: Any, algorithm: str, what: str, path: str) -> str:
    digits = 2 * _DIGEST_BYTES[algorithm]
    text = as_text(value, what, path)
    if re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is None:
        raise refusal(path, f"{what}: {quoted(text)}", f"{algorithm}, {digits} lower-case hex digits")
    return text


def _check_root(value: Any, found: str, path: str) -> None:
    subjects = as_array(value, "subject", path)
    if len(subjects) != 1:
        raise refusal(path, f"{len(subjects)} subjects", "one, the model")
    digests = as_object(as_object(subjects[0], "a subject", path).get("digest"), "the digest of the subject", path)
    root = _parse_digest(digests.get("sha256"), "sha256", "the digest of the subject", path)
    if found != root:
        raise refusal(path, f"resources with the root digest {found}", f"{root}, the digest of the subject")


def _check_resources(resources: list[_Resource], path: str) -> str:
    """Their root digest."""
    if not resources:
        raise refusal(path, "no resources", "at least one")  # it would sign any model
    _check_order(resources, path)
    return hashlib.sha256(b"".join(bytes.fromhex(resource.digest) for resource in resources)).hexdigest()


def _check_order(resources: list[_Resource], path: str) -> None:
    """Sorted as model-signing does it (folder by folder, shards by number), or by name as the specification says."""
    by_folder = [(resource.path.split("/"), resource.start) for resource in resources]
    by_name = [resource.name for resource in resources]
    if all(a < b for a, b in pairwise(by_name)):
        return
    for number in range(1, len(resources)):
        if by_folder[number - 1] >= by_folder[number]:
            found = f"the resource {quoted(by_name[number])} after {quoted(by_name[number - 1])}"
            raise refusal(path, found, "each once, sorted by name")


def _build_files(resources: list[_Resource], serialization: _Serialization, path: str) -> dict[str, SignedFile]:
    algorithm = serialization.algorithm
    files: dict[str, SignedFile]
    if serialization.method == "files":
        files = {resource.path: WholeFile(algorithm, resource.digest) for resource in resources}
    else:
        shards: dict[str, list[SignedShard]] = {}
        for each in sorted(resources, key=lambda resource: (resource.path, resource.start)):
            before = shards.setdefault(each.path, [])
            _check_follows(each, before[-1].end if before else 0, path)
            before.append(SignedShard(each.start, each.end, each.digest))
        files = {file: ShardedFile(algorithm, tuple(its)) for file, its in shards.items()}
    try:
        check_paths_fit(sorted(files))
    except PathError as exc:
        raise refusal(path, str(exc), "no file that is a folder too") from exc
    return files


def _check_follows(shard: _Resource, end: int, path: str) -> None:
    if shard.start != end:
        what = "a gap" if shard.start > end else "an overlap"
        raise refusal(path, f"{what} before the shard {quoted(shard.name)}", f"one that starts at {end}")
    if shard.end <= shard.start:
        raise refusal(path, f"the shard {quoted(shard.name)}, without bytes", "an end behind its start")
