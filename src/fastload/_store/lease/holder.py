"""The record of a lease: who holds it, how far it is, and a counter that shows that it lives."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from fastload._system_file import read_boot_id
from fastload._verify.canonical import MAX_INTEGER, canonical_json
from fastload.errors import FormatError, escaped
from fastload.strict_json import JsonError, parse_json

MAX_RECORD_BYTES = 4096
_MAX_TEXT_CHARS = 300
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease, by its own word."""

    id: str
    """32 random hex digits: one holding, not one process."""
    counter: int
    """Grows with every beat."""
    host: str
    pid: int
    """As its own container counts."""
    boot_id: str
    device: int
    """``st_dev`` of the folder as the holder sees it: two mounts of one server keep separate locks."""
    what: str
    """What it does, for people."""
    done_bytes: int
    total_bytes: int
    """0 while it is not known."""

    @property
    def beat(self) -> tuple[str, int]:
        """What differs between any two records."""
        return self.id, self.counter

    @property
    def standing(self) -> tuple[str, int]:
        """What stays the same where nothing moves. One who waits in turn says in ``what`` how far that one is."""
        return self.what, self.done_bytes

    def __str__(self) -> str:
        known = f" of {self.total_bytes:,}" if self.total_bytes else ""
        return f"pid {self.pid} on {escaped(self.host)} ({escaped(self.what)}; {self.done_bytes:,}{known} bytes done)"


def short_text(text: str) -> str:
    """``text`` for people, as a record can hold it."""
    return escaped(text)[:_MAX_TEXT_CHARS]


def this_process(what: str, folder: str) -> Holder:
    """A record that says that this process holds a lease in ``folder``."""
    return Holder(
        id=os.urandom(16).hex(),
        counter=0,
        host=short_text(os.uname().nodename),
        pid=os.getpid(),
        boot_id=read_boot_id(),
        device=os.stat(folder).st_dev,
        what=short_text(what),
        done_bytes=0,
        total_bytes=0,
    )


def dump_holder(holder: Holder) -> bytes:
    """The bytes of the record."""
    return canonical_json(asdict(holder))


def parse_holder(raw: bytes, *, path: str) -> Holder:
    """The record spelled by ``raw``.

    Keys that nobody here knows are passed over: a later fastload must not be taken for dead for having more to say.

    Raises:
        FormatError: it is none.
    """
    if len(raw) > MAX_RECORD_BYTES:
        raise FormatError(path, f"more than {MAX_RECORD_BYTES} bytes", "the record of a lease")
    try:
        document = parse_json(raw)
    except JsonError as exc:
        raise FormatError(path, str(exc), "the record of a lease") from exc
    if type(document) is not dict:
        raise FormatError(path, "JSON that is no object", "the record of a lease")
    holder = Holder(**{field.name: _parse_field(field.name, field.type, document, path) for field in fields(Holder)})
    if not _ID.fullmatch(holder.id):
        raise FormatError(path, "an id that is none", "32 hex digits")
    return holder


def _parse_field(name: str, kind: Any, document: dict[str, Any], path: str) -> Any:
    value = document.get(name)
    if kind == "int":
        is_good = type(value) is int and value <= MAX_INTEGER  # a negative one or a fraction is no int here
    else:
        is_good = type(value) is str and len(value) <= _MAX_TEXT_CHARS
    if not is_good:
        raise FormatError(path, f"no {name}, or an odd one", f"{name} as fastload writes it")
    return value
