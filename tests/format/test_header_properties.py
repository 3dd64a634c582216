"""What holds for all headers: valid ones come back as they were written, and all else is a ``FormatError``."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastload._format.dtype import DTYPES
from fastload._format.header import LENGTH_BYTES, MAX_HEADER_BYTES, Header, parse_header, parse_header_length
from fastload._format.index import Index, parse_index
from fastload.errors import FormatError
from fastload.strict_json import JsonError, check_nesting
from judges import PATH, parse, parse_tensors
from writing import entry, pack, shard_bytes

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other processes slow a machine down
WHITESPACE = st.text(alphabet=" \t\r\n", max_size=20)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, list[int], bytes]:
    """A dtype, a shape that comes out in whole bytes, and the data."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    bits = DTYPES[dtype].bits
    shape = draw(st.lists(st.integers(0, 4), max_size=5))
    if math.prod(shape) * bits % 8:
        shape.append(8)
    return dtype, shape, draw(st.binary(min_size=(size := math.prod(shape) * bits // 8), max_size=size))


CHECKPOINTS = st.dictionaries(NAMES, tensors(), max_size=8)
METADATA = st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"])), max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*DTYPES, 0, 1, 4, 8]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
NESTED = st.recursive(
    st.text('[]{}"\\\\', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\\\', max_size=3), inner, max_size=3),
    max_leaves=30,
)
ENTRIES = st.fixed_dictionaries(
    {"dtype": JSON, "shape": JSON, "data_offsets": JSON | st.lists(st.integers(0, 32), min_size=2, max_size=2)},
    optional={"x": JSON},
)


@PATIENT
@given(CHECKPOINTS, METADATA)
def test_what_was_written_is_read(written: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str]) -> None:
    file = pack(written, metadata)
    assert parse_tensors(file) == {name: (dtype, tuple(shape), data) for name, (dtype, shape, data) in written.items()}
    assert parse(file).metadata == metadata


@PATIENT
@given(CHECKPOINTS, WHITESPACE, WHITESPACE, st.booleans(), st.randoms(use_true_random=False))
def test_spelling_and_order_change_nothing(
    written: dict[str, tuple[str, list[int], bytes]], before: str, after: str, escape: object, chance: Any
) -> None:
    file = pack(written)
    data_start = parse(file).data_start
    pairs = list(json.loads(file[LENGTH_BYTES:data_start]).items())
    chance.shuffle(pairs)
    spelled = before + json.dumps(dict(pairs), ensure_ascii=bool(escape), indent=len(before)) + after
    assert parse_tensors(shard_bytes(spelled.encode(), file[data_start:])) == parse_tensors(file)


@PATIENT
@given(CHECKPOINTS)
def test_tensors_tile_the_file(written: dict[str, tuple[str, list[int], bytes]]) -> None:
    header = parse(pack(written))
    ends = [header.data_start, *(tensor.end for tensor in header.tensors)]
    assert [tensor.begin for tensor in header.tensors] == ends[:-1]
    assert ends[-1] == header.file_bytes


@PATIENT
@given(CHECKPOINTS.filter(bool), st.integers(min_value=1))
def test_no_part_of_a_file_is_a_file(written: dict[str, tuple[str, list[int], bytes]], missing: int) -> None:
    file = pack(written)
    assert refuses(file[: -min(missing, len(file))])
    assert refuses(file + b"\0")


@PATIENT
@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_are_a_header_or_a_format_error(raw: bytes, file_bytes: int) -> None:
    check_total(raw, file_bytes)


@PATIENT
@given(st.text(alphabet='{}[]",:\\u0123456789.eE+- \n\ud800truefalsn', max_size=80))
def test_any_json_like_text_is_a_header_or_a_format_error(text: str) -> None:
    check_total(text.encode("utf-8", "surrogatepass"), 8 + len(text))


@PATIENT
@given(JSON | st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), ENTRIES | JSON), st.integers(0, 64))
def test_any_json_is_a_header_or_a_format_error(document: object, data_bytes: int) -> None:
    raw = json.dumps(document).encode()
    check_total(raw, LENGTH_BYTES + len(raw) + data_bytes)


@PATIENT
@given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps({"weight_map": value}).encode()))
def test_any_bytes_are_an_index_or_a_format_error(raw: bytes) -> None:
    try:
        assert isinstance(parse_index(raw, path=PATH), Index)
    except FormatError as error:
        check_facts(error)


@PATIENT
@given(st.binary(max_size=12), st.integers(0, 1 << 64))
def test_any_prefix_is_a_sane_length_or_a_format_error(prefix: bytes, file_bytes: int) -> None:
    try:
        length = parse_header_length(prefix, path=PATH, file_bytes=file_bytes)
    except FormatError as error:
        check_facts(error)
    else:
        assert length == int.from_bytes(prefix[:LENGTH_BYTES], "little")
        assert length <= min(MAX_HEADER_BYTES, file_bytes - LENGTH_BYTES)


@PATIENT
@given(NAMES, st.sampled_from(["U8", "F32"]), st.integers(0, 1 << 70), st.integers(0, 1 << 70))
def test_sizes_of_any_length_do_not_leak_an_error_of_python(name: str, dtype: str, length: int, end: int) -> None:
    raw = json.dumps({name: entry(dtype, [length, 3], 0, end)}).encode()
    check_total(raw, LENGTH_BYTES + len(raw))


@PATIENT
@given(NESTED, st.sampled_from([1, 300]))
def test_nesting_is_counted_as_it_is_whatever_the_strings_hold(value: object, copies: int) -> None:
    raw = json.dumps([value] * copies).encode()
    room = 127 - depth([value])
    check_nesting(b"[" * room + raw + b"]" * room)
    with pytest.raises(JsonError):
        check_nesting(b'{"":' * (room + 1) + raw + b"}" * (room + 1))


def depth(value: object) -> int:
    """How many levels a JSON value has."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def refuses(file: bytes) -> bool:
    """Is it a ``FormatError``?"""
    try:
        parse(file)
    except FormatError:
        return True
    return False


def check_total(raw: bytes, file_bytes: int) -> None:
    """A header or a ``FormatError``, and nothing else."""
    try:
        assert isinstance(parse_header(raw, path=PATH, file_bytes=file_bytes), Header)
    except FormatError as error:
        check_facts(error)


def check_facts(error: FormatError) -> None:
    """It names the file and says what is wrong, in text that any terminal bears."""
    assert error.path == PATH
    assert error.found
    assert error.expected
    assert str(error).isprintable()
