"""The record of a lease lies where anybody may write: it is a holder, or it is malformed, and never anything else."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._store.lease.file import LeaseFile
from fastload._store.lease.holder import MAX_RECORD_BYTES, Holder, dump_holder, parse_holder, this_process
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = Holder(
    id="0123456789abcdef" * 2,
    counter=7,
    host="node-1",
    pid=42,
    boot_id="b",
    device=2,
    what="bringing org/name",
    done_bytes=3_000,
    total_bytes=10_000,
)


def document(**changes: Any) -> bytes:
    """The record of ``HOLDER`` with ``changes``."""
    return json.dumps({**asdict(HOLDER), **changes}).encode()


def test_a_record_comes_back_as_it_was() -> None:
    assert parse_holder(dump_holder(HOLDER), path="/x") == HOLDER


def test_a_person_reads_who_it_is_and_how_far() -> None:
    assert str(HOLDER) == "pid 42 on node-1 (bringing org/name; 3,000 of 10,000 bytes done)"


def test_what_a_later_fastload_adds_is_passed_over() -> None:
    assert parse_holder(document(more=[1.5, {}]), path="/x") == HOLDER


@pytest.mark.parametrize("what", ["a\nb\x1b[2J", "\udcff", "\U0001f600" * 1000, "x" * 10_000])
def test_any_text_makes_a_record_that_can_be_read(what: str, tmp_path: Path) -> None:
    holder = this_process(what, str(tmp_path))
    raw = dump_holder(holder)
    assert len(raw) <= MAX_RECORD_BYTES
    assert parse_holder(raw, path="/x") == holder
    assert str(holder).isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "0" * 31},
        {"id": "../" + "0" * 29},
        {"id": None},
        {"counter": -1},
        {"counter": 1.5},
        {"counter": True},
        {"counter": 1 << 53},
        {"counter": 10**400},
        {"pid": "1"},
        {"host": 7},
        {"what": "x" * 301},
        {"boot_id": None},
        {"done_bytes": None},
        {"total_bytes": []},
    ],
)
def test_odd_records_are_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        parse_holder(document(**changes), path="/x")


@pytest.mark.parametrize("name", asdict(HOLDER))
def test_every_field_is_needed(name: str) -> None:
    facts = asdict(HOLDER)
    del facts[name]
    with pytest.raises(FormatError, match=name):
        parse_holder(json.dumps(facts).encode(), path="/x")


@given(st.binary(max_size=100) | st.sampled_from([b"[" * 4000, b"{}", b"[]", b"null", dump_holder(HOLDER) * 2]))
def test_any_bytes_are_malformed_and_no_other_error(raw: bytes) -> None:
    with pytest.raises(FormatError):
        parse_holder(raw, path="/x")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    file = LeaseFile(str(tmp_path), "x")
    with open(file.path, "wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(FormatError, match="4096"):
        file.read()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_is_said_to_be_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.lease"
    path.mkdir() if kind == "folder" else path.symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="cannot be read"):
        LeaseFile(str(tmp_path), "x").read()
