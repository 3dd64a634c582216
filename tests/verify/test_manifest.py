"""A manifest is evidence: one spelling, byte by byte, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from blake3 import blake3

from fastload._verify import manifest as module
from fastload._verify.canonical import canonical_json
from fastload._verify.digest import BLOCK_BYTES
from fastload._verify.manifest import Manifest, dump_manifest, parse_manifest, plain_commit
from fastload.errors import FormatError, UnsupportedError
from manifests import PATH, document_of, file_document, file_of, refusal

GOLDEN = Path(__file__).parent / "golden" / "manifest.json"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MANIFEST = Manifest(
    repo="org/name",
    commit=COMMIT,
    source="https://huggingface.co",
    files=(
        file_of("config.json", b'{"model_type": "llama"}\n'),
        file_of("empty.txt", b""),
        file_of("model-00001-of-00001.safetensors", b"\0" * BLOCK_BYTES + b"tail", is_small=False),
        file_of("sub folder/\u6a21\u578b \u20ac \U0001f600.json", b"{}"),
    ),
)


def test_the_bytes_are_the_contract() -> None:
    """Scripts and later versions read this file. If it must change, the schema must."""
    assert dump_manifest(MANIFEST) == GOLDEN.read_bytes()


def test_what_was_dumped_is_parsed() -> None:
    assert parse_manifest(GOLDEN.read_bytes(), path=PATH) == MANIFEST


@pytest.mark.parametrize("key", ["repo", "source"])
@pytest.mark.parametrize("name", ["", "a\nb", "a\x7f", "a\udcff", "a" * 4097])
def test_what_would_not_be_parsed_is_not_dumped(key: str, name: str) -> None:
    names = {"repo": "org/name", "source": "hub", key: name}
    with pytest.raises(FormatError, match="Rename"):
        dump_manifest(Manifest(commit=COMMIT, files=MANIFEST.files, **names))
    with pytest.raises(FormatError):
        parse_manifest(rfc8785.dumps(json.loads(GOLDEN.read_bytes()) | {key: name.replace("\udcff", "\0")}), path=PATH)


def test_another_implementation_spells_it_alike() -> None:
    assert rfc8785.dumps(json.loads(GOLDEN.read_bytes())) == GOLDEN.read_bytes()


def test_files_are_found_by_path() -> None:
    assert all(MANIFEST.find(file.path) is file for file in MANIFEST.files)
    assert [MANIFEST.find(path) for path in ("", "config", "config.json2", "zzz")] == [None] * 4


def test_the_commit_of_a_plain_folder_follows_from_its_files_in_any_order() -> None:
    listed: Any = [[file.path, file.size, file.sha256] for file in MANIFEST.files]
    expected = blake3(rfc8785.dumps(listed)).hexdigest()[:40]
    assert plain_commit(MANIFEST.files) == plain_commit(MANIFEST.files[::-1]) == expected
    assert expected == "48c889184e95f628496d9906c2eb040e14775eeb"
    assert plain_commit(MANIFEST.files[:3]) != expected
    assert plain_commit([*MANIFEST.files[:3], replace(MANIFEST.files[3], path="other")]) != expected


def test_the_examples_of_the_refusals_are_valid_without_their_flaw() -> None:
    assert len(parse_manifest(canonical_json(document_of()), path=PATH).files) == 2


@pytest.mark.parametrize("schema", [0, 2, 17])
def test_another_schema_is_named(schema: int) -> None:
    error = refusal(canonical_json({"schema": schema, "more": []}))
    assert isinstance(error, UnsupportedError)
    assert f"schema {schema}" in str(error) and PATH in str(error)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": None}, "schema"),
        ({"schema": True}, "schema"),
        ({"schema": "1"}, "schema"),
        ({"schema": [[]]}, "schema"),
        ({"more": 1}, "'more'"),
        ({"repo": ""}, "repo"),
        ({"repo": 7}, "repo"),
        ({"repo": "a\nb"}, "repo"),
        ({"repo": "x" * 5000}, "repo"),
        ({"source": None}, "source"),
        ({"source": "\x1b[2J"}, "source"),
        ({"commit": "0" * 39}, "commit"),
        ({"commit": "0" * 41}, "commit"),
        ({"commit": "0" * 39 + "A"}, "commit"),
        ({"commit": "0" * 40 + "\n"}, "commit"),
        ({"commit": "\u0660" * 40}, "commit"),
        ({"commit": 0}, "commit"),
        ({"files": None}, "files"),
        ({"files": {}}, "files"),
        ({"files": []}, "no files"),
        ({"files": [[]]}, "a file that is no object"),
    ],
)
def test_malformed_manifests_are_refused(changes: dict[str, Any], said: str) -> None:
    error = refusal(canonical_json(document_of(**changes)))
    assert isinstance(error, FormatError) and error.path == PATH
    assert said in error.found


@pytest.mark.parametrize("key", ["schema", "repo", "commit", "source", "files"])
def test_every_key_is_needed(key: str) -> None:
    document = document_of()
    del document[key]
    error = refusal(canonical_json(document))
    assert isinstance(error, FormatError) and key in error.found


@pytest.mark.parametrize("key", ["path", "size", "sha256", "blocks"])
def test_every_key_of_a_file_is_needed(key: str) -> None:
    entry = file_document()
    del entry[key]
    error = refusal(canonical_json(document_of(files=[entry])))
    assert isinstance(error, FormatError) and key in error.found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha1": "ab" * 20}, "'sha1'"),
        ({"size": -1}, "size"),
        ({"size": True}, "size"),
        ({"size": None}, "size"),
        ({"size": "7"}, "size"),
        ({"size": 0}, "1 blocks"),
        ({"size": BLOCK_BYTES}, ""),
        ({"size": BLOCK_BYTES + 1}, "1 blocks"),
        ({"blocks": []}, "0 blocks"),
        ({"blocks": ["cd" * 32] * 2}, "2 blocks"),
        ({"blocks": "cd" * 32}, "no array"),
        ({"blocks": None}, "no array"),
        ({"blocks": ["CD" * 32]}, "a block"),
        ({"blocks": ["cd" * 31]}, "a block"),
        ({"blocks": [7]}, "a block"),
        ({"blocks": [["cd" * 32]]}, "a block"),
        ({"sha256": "ab" * 20}, "sha256"),
        ({"sha256": "AB" * 32}, "sha256"),
        ({"sha256": None}, "sha256"),
        ({"git_sha1": None}, "git_sha1"),
        ({"git_sha1": "ab" * 32}, "git_sha1"),
        ({"path": "../x"}, "'../x'"),
        ({"path": None}, "path"),
    ],
)
def test_malformed_files_are_refused(changes: dict[str, Any], said: str) -> None:
    raw = canonical_json(document_of(files=[file_document(**changes)]))
    if not said:
        parse_manifest(raw, path=PATH)
        return
    error = refusal(raw)
    assert isinstance(error, FormatError) and said in error.found


@pytest.mark.parametrize(
    ("blocks", "named"),
    [
        (["cd" * 32, "cd" * 31, "cd" * 33], "cd" * 31),
        (["cd" * 32, "cd" * 31 + "cD", "CD" * 32], "cd" * 31 + "cD"),
        (["cd" * 32, "cd" * 31 + "c\u0664", ""], "cd" * 31 + "c\u0664"),
        (["cd" * 32, "cd" * 31 + "c\n", "cd" * 32], "cd" * 31 + "c"),
        (["cd" * 64, "", "cd" * 32], "cd" * 64),
        (["cd" * 32, 7, "x"], "no text"),
        (["x", "cd" * 32, None], "'x'"),
    ],
)
def test_of_many_blocks_the_first_one_that_is_none_is_named(blocks: list[Any], named: str) -> None:
    entry = file_document(size=3 * BLOCK_BYTES, blocks=blocks)
    error = refusal(canonical_json(document_of(files=[entry])))
    assert isinstance(error, FormatError)
    assert error.found.startswith("a block of") and named in error.found


def test_a_block_that_is_a_number_of_as_many_digits_is_none() -> None:
    entry = file_document(size=3 * BLOCK_BYTES, blocks=["12" * 32] * 3)
    raw = canonical_json(document_of(files=[entry]))
    number = raw.replace(b'"%s"]' % (b"12" * 32), b"12" * 32 + b"]")
    assert number != raw
    error = refusal(number)
    assert isinstance(error, FormatError) and "a block of" in error.found


@pytest.mark.parametrize("size", ["7.0", "7e0", "-0", "9007199254740992", "1" * 30, "1" * 5000, "NaN", "Infinity"])
def test_sizes_that_two_readers_may_see_differently_are_refused(size: str) -> None:
    raw = canonical_json(document_of(files=[file_document()])).replace(b'"size":7', b'"size":' + size.encode())
    assert isinstance(refusal(raw), FormatError)


@pytest.mark.parametrize("paths", [["b", "a"], ["a", "a"], ["a", "a/b"], ["a", "a-b", "a/b"], ["a/b", "a/b/c/d"]])
def test_paths_that_do_not_fit_together_are_refused(paths: list[str]) -> None:
    error = refusal(canonical_json(document_of(files=[file_document(path=path) for path in paths])))
    assert isinstance(error, FormatError) and "sorted" in error.expected


def spelled_otherwise() -> list[bytes]:
    """The golden manifest in JSON that means the same, or nearly."""
    golden = GOLDEN.read_bytes()
    document = json.loads(golden)
    return [
        golden + b"\n",
        b" " + golden,
        b"\xef\xbb\xbf" + golden,
        golden.replace(b":", b": ", 1),
        golden.replace(b"/", b"\\/"),
        golden.replace(b"config", b"\\u0063onfig"),
        golden.replace(b'"schema":1', b'"schema":1,"schema":1'),
        golden.replace(b'"size":0', b'"size":0,"size":0'),
        json.dumps(document, separators=(",", ":")).encode(),
        json.dumps(dict(reversed(document.items())), separators=(",", ":"), ensure_ascii=False).encode(),
        golden.decode().encode("utf-16"),
        golden.decode().encode("utf-32-le"),
    ]


@pytest.mark.parametrize("raw", spelled_otherwise())
def test_another_spelling_is_no_manifest(raw: bytes) -> None:
    assert raw != GOLDEN.read_bytes()
    assert isinstance(refusal(raw), FormatError)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\x80",
        b"\0" * 100,
        b"[" * 1_000_000,
        b'{"files":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"a":' * 100_000,
        rb'{"schema":1,"repo":"\ud800"}',
        b"9" * 100_000,
    ],
    ids=range(12),
)
def test_bytes_that_are_nothing_are_refused(raw: bytes) -> None:
    assert isinstance(refusal(raw), FormatError)


def test_too_much_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MANIFEST_BYTES", 100)
    error = refusal(b"{" * 101)
    assert isinstance(error, FormatError) and error.expected == "at most 100"


FLOODS = {
    "empty arrays": b"[],",
    "empty objects": b"{},",
    "arrays in a file's blocks": b'{"blocks":[[],[],[],[],[],[],[],[],[]]},',
    "what looks like files": b'{"blocks":[],"path":"","sha256":"","size":0},',
    "manifests in it": b'{"files":[]},',
    "small numbers": b"-1,",
    "chains of objects": b'{"a":' * 90 + b"0" + b"}" * 90 + b",",
    "long chains of objects": b'{"aaaaaaaaaaa":' * 90 + b"0" + b"}" * 90 + b",",
    "small objects": b'{"aaaaaaaaaaaaaaaaaaaaaaaaaaa":[]},',
    "chains of arrays": b"[" * 90 + b"]" * 90 + b",",
}


@pytest.mark.parametrize("piece", FLOODS.values(), ids=FLOODS)
def test_what_is_full_of_values_that_no_manifest_needs_is_refused_before_it_is_parsed(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes up to a hundred times its bytes, or of time; a valid one has a string of 64 digits for most."""

    def refuse(*_: object) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr("fastload.strict_json.json.loads", refuse)
    head, tail = canonical_json(document_of(files=[[]])).split(b"[[]]")
    raw = head + b"[" + piece * ((1 << 20) // len(piece)) + b"0]" + tail
    error = refusal(raw)
    assert isinstance(error, FormatError) and "JSON values" in error.found


def test_the_densest_manifest_is_no_such_flood() -> None:
    """Of empty files with short names, with and without git's digest: nothing has more values for its bytes."""
    names = [f"{number:x}" for number in range(20_000)]
    entries = [file_document(path=name, size=0, blocks=[]) for name in sorted(names)]
    for files in (entries, [{**entry, "git_sha1": "ef" * 20} for entry in entries]):
        raw = canonical_json(document_of(repo="a", source="b", files=files))
        assert len(parse_manifest(raw, path=PATH).files) == len(names)


def test_commas_and_brackets_in_names_are_no_values() -> None:
    names = sorted(f"{number:04x}" + "[,{" * 80 for number in range(2_000))
    raw = canonical_json(document_of(files=[file_document(path=name, size=0, blocks=[]) for name in names]))
    assert len(parse_manifest(raw, path=PATH).files) == len(names)
