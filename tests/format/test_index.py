"""An index is written by strangers and names files: what it may say, and that it cannot point out of its folder."""

from __future__ import annotations

import json

import pytest

from fastload._format.index import Index, parse_index
from fastload.errors import FormatError
from sentences import check_sentence

PATH = "/models/x/model.safetensors.index.json"


def refusal(raw: bytes) -> FormatError:
    """What fastload says about a malformed index."""
    with pytest.raises(FormatError) as caught:
        parse_index(raw, path=PATH)
    return caught.value


def naming(file: object) -> bytes:
    """An index whose tensor ``a`` is in ``file``."""
    return json.dumps({"weight_map": {"a": file}}).encode()


def test_a_valid_index_says_where_each_tensor_is() -> None:
    raw = b'{"metadata":{"total_size":9},"weight_map":{"b":"2.safetensors","a":"1.safetensors","c":"1.safetensors"}}'
    index = parse_index(raw, path=PATH)
    assert index == Index(PATH, {"b": "2.safetensors", "a": "1.safetensors", "c": "1.safetensors"}, {"total_size": 9})
    assert index.shards == ("1.safetensors", "2.safetensors")


@pytest.mark.parametrize("metadata", ["", '"metadata":null,', '"metadata":[],', '"metadata":{},', '"x":[[]],'])
def test_metadata_is_nobodys_business(metadata: str) -> None:
    spelled = f'{{{metadata}"weight_map":{{"a":"a.safetensors"}}}}'
    assert parse_index(spelled.encode(), path=PATH).metadata == {}


def test_an_index_of_nothing_is_no_model() -> None:
    with pytest.raises(FormatError, match="names no tensor"):
        parse_index(b'{"weight_map":{}}', path=PATH)


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors",
        "sub/folder/model.safetensors",
        "model-00001-of-00002.safetensors",
        "a b.safetensors",
        "\u6a21\u578b.safetensors",
        "..model..safetensors",
        "...safetensors",
        "~.safetensors",
        "-rf.safetensors",
        "$HOME.safetensors",
        "%2e%2e%2fx.safetensors",
    ],
)
def test_plain_relative_names_are_taken_as_they_are(file: str) -> None:
    assert parse_index(naming(file), path=PATH).shards == (file,)


@pytest.mark.parametrize(
    "file",
    [
        "",
        ".",
        "..",
        "/etc/passwd.safetensors",
        "//host/share.safetensors",
        "../x.safetensors",
        "a/../../x.safetensors",
        "a/./x.safetensors",
        "a//x.safetensors",
        "a/",
        "a/..",
        "./x.safetensors",
        "..\\x.safetensors",
        "C:\\x.safetensors",
        "https://example.org/x.safetensors",
        "file:///x.safetensors",
        "s3://bucket/x.safetensors",
        "x.safetensors\0",
        "x\0.safetensors",
        "x\n.safetensors",
        "\x1b[2J.safetensors",
        "\u202e.safetensors",
        "n" * 1100 + ".safetensors",
        "\U0001f600" * 300 + ".safetensors",
    ],
)
def test_names_that_lead_elsewhere_are_refused(file: str) -> None:
    error = refusal(naming(file))
    assert (error.path, error.tensor) == (PATH, "a")
    assert "plain relative file name" in error.expected
    check_sentence(error)
    assert len(str(error)) < 2000


@pytest.mark.parametrize(
    "file", ["x.bin", "x.safetensors.index.json", "x.SAFETENSORS", "safetensors", "x.safetensors "]
)
def test_names_of_other_kinds_of_files_are_refused(file: str) -> None:
    error = refusal(naming(file))
    assert ".safetensors" in error.expected
    assert error.tensor == "a"
    check_sentence(error)


def test_a_bad_name_is_told_with_the_first_tensor_that_is_said_to_be_there() -> None:
    """First in the file; and of several bad names the first one, not any."""
    shard_of = {"fine": "x.safetensors", "z": "../x.safetensors", "b": "/x.bin", "a": "../x.safetensors"}
    error = refusal(json.dumps({"weight_map": shard_of}).encode())
    assert (error.tensor, error.found) == ("z", "the shard name '../x.safetensors'")


def test_values_that_are_no_shards_are_few() -> None:
    raw = b'{"metadata":[%s],"weight_map":{"a":"a.safetensors"}}'
    for few in (b",".join([b"0"] * 249_000), b'"%s"' % (b"," * 300_000)):
        assert parse_index(raw % few, path=PATH).shards == ("a.safetensors",)
    assert (
        refusal(raw % b",".join([b"0"] * 251_000)).found == "more than 250,000 JSON values beside those of its tensors"
    )


@pytest.mark.parametrize("file", [None, 1, -1.5, True, [], {}, ["x.safetensors"]])
def test_names_that_are_no_strings_are_refused_with_the_tensor(file: object) -> None:
    assert refusal(naming(file)).tensor == "a"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"not JSON",
        b"\x80",
        b"\xef\xbb\xbf" + naming("x.safetensors"),
        naming("x.safetensors").decode().encode("utf-16"),
        b'{"weight_map":null}',
        b'{"weight_map":[]}',
        b'{"weight_map":"x.safetensors"}',
        b'{"weight_map":{},"weight_map":{}}',
        b'{"weight_map":{},"metadata":NaN}',
        b'{"weight_map":{"\\ud800":"x.safetensors"}}',
        b'{"weight_map":{"a":"\\ud800.safetensors"}}',
        b"[" * 100_000,
        naming("x.safetensors") + b"x",
    ],
)
def test_what_is_no_index_is_refused(raw: bytes) -> None:
    error = refusal(raw)
    assert error.path == PATH
    check_sentence(error)


@pytest.mark.parametrize("other", ["a", "\\u0061"])
def test_a_tensor_twice_is_refused(other: str) -> None:
    raw = f'{{"weight_map":{{"a":"1.safetensors","{other}":"2.safetensors"}}}}'.encode()
    assert "'a' twice" in refusal(raw).found


def test_a_tensor_that_is_named_twice_is_told_by_its_name() -> None:
    error = refusal(b'{"weight_map":{"a":"1.safetensors","b":"1.safetensors","a":"2.safetensors"}}')
    assert error.tensor == "a"
    assert refusal(b'{"metadata":{"a":1,"a":2},"weight_map":{}}').tensor is None
    assert refusal(b'{"weight_map":{},"weight_map":{}}').tensor is None


@pytest.mark.parametrize(("depth", "is_fine"), [(126, True), (127, False), (300, False)])
def test_metadata_is_nested_as_deep_as_in_a_header_and_no_deeper(depth: int, is_fine: bool) -> None:  # noqa: FBT001
    raw = f'{{"metadata":{"[" * depth}{"]" * depth},"weight_map":{{"a":"a.safetensors"}}}}'.encode()
    if is_fine:
        assert parse_index(raw, path=PATH).shards == ("a.safetensors",)
    else:
        assert "127 levels" in refusal(raw).found
