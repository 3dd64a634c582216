"""Sizes, durations, shares, switches and lists, from the spellings that people write."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_UNITS = "kmgt"
_SIZE = re.compile(
    r"(?P<whole>\d{1,20})(?:\.(?P<fraction>\d{1,20}))?\s*(?:(?P<unit>[kmgt])(?P<binary>i?))?b?",
    re.ASCII | re.IGNORECASE,
)
_DURATION = re.compile(r"(?P<count>\d{1,9}(?:\.\d{1,9})?)\s*(?P<unit>s|m|min|h|d)?", re.ASCII)
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PERCENT = re.compile(r"(?P<percent>\d{1,3}(?:\.\d{1,9})?)\s*%", re.ASCII)
_ALL_PERCENT = 100
_LONGEST_S = 200 * 365 * 86400.0
"""No timer of the system takes three hundred years."""
_SHOWN = 100

Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True)
class Share:
    """Some bytes, or a fraction of a whole that is not known yet."""

    nbytes: int = 0
    fraction: float = 0.0

    def of(self, total_bytes: int) -> int:
        """The bytes that it means where the whole has ``total_bytes``."""
        return max(self.nbytes, int(self.fraction * total_bytes))


def _written(value: Any) -> str:
    """As a person writes it; empty for a number of so many digits that Python does not write it (4300)."""
    try:
        return str(value).strip()
    except (ValueError, RecursionError):
        return ""


def _shown(value: Any) -> str:
    """As a message shows it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "a value that is too long to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def parse_size(value: int | str) -> int:
    """Bytes from ``1048576``, ``"500Gi"``, ``"1.5GB"``.

    Raises:
        UsageError: it is none of these.
    """
    match = _SIZE.fullmatch(_written(value))
    if match is None:
        raise UsageError(f"{_shown(value)} is no size", "Write bytes or a unit, such as 268435456 or 256Mi")
    unit, fraction = match["unit"], match["fraction"] or "0"
    if unit is None and int(fraction):  # to take it for bytes would make nothing of a share that lacks its sign
        raise UsageError(f"{_shown(value)} is no whole number of bytes", "Write a unit, such as 1.5Gi")
    power = _UNITS.index(unit.lower()) + 1 if unit else 0
    scale = int((1024 if match["binary"] else 1000) ** power)
    return int(match["whole"]) * scale + int(fraction) * scale // int(10 ** len(fraction))  # exact, unlike a float


def parse_rate(value: int | str) -> int:
    """Bytes a second.

    Raises:
        UsageError: it is no size, or none.
    """
    rate = parse_size(value)
    if not rate:
        raise UsageError("a rate of 0 lets nothing through", "Leave it out for no limit")
    return rate


def parse_share(value: int | str) -> Share:
    """A size, or ``"5%"`` of the whole.

    Raises:
        UsageError: it is neither.
    """
    match = _PERCENT.fullmatch(_written(value))
    if match is None:
        try:
            return Share(nbytes=parse_size(value))
        except UsageError as exc:
            raise UsageError(exc.what, "Write a size or a share, such as 50Gi or 5%") from exc
    percent = float(match["percent"])
    if percent > _ALL_PERCENT:
        raise UsageError(f"{_shown(value)} is more than all", "Write at most 100%")
    return Share(fraction=percent / _ALL_PERCENT)


def parse_duration(value: float | str) -> float:
    """Seconds from ``90``, ``"90s"``, ``"15m"``, ``"6h"``.

    Raises:
        UsageError: it is none of these, or more than two hundred years.
    """
    match = _DURATION.fullmatch(_written(value))
    if match is None:
        raise UsageError(f"{_shown(value)} is no duration", "Write seconds or a unit, such as 90, 15m or 6h")
    seconds = float(match["count"]) * _SECONDS[match["unit"]]
    if seconds > _LONGEST_S:
        raise UsageError(f"{_shown(value)} is more than two hundred years", "Write at most 73000d, or leave it out")
    return seconds


def one_of(what: str, *allowed: Word) -> Callable[[Any], Word]:
    """A parser that takes these words, and gives the one of them that is meant."""

    def parse(value: Any) -> Word:
        if value not in allowed:
            raise UsageError(f"no {what} {_shown(value)}", f"Use one of {', '.join(allowed)}")
        return allowed[allowed.index(value)]

    return parse


def parse_switch(value: bool | str) -> bool:  # noqa: FBT001 - TOML's own booleans arrive here
    """True or False, from TOML's booleans, ``on`` and ``off``, ``1`` and ``0``.

    Raises:
        UsageError: it is none of these.
    """
    switch = {"true": True, "on": True, "1": True, "yes": True, "false": False, "off": False, "0": False, "no": False}
    word = _written(value).lower()
    if word not in switch:
        raise UsageError(f"{_shown(value)} is neither on nor off", "Write on or off")
    return switch[word]


def parse_words(what: str, *allowed: Word) -> Callable[[Any], tuple[Word, ...]]:
    """A parser of a list of these words, separated by commas."""
    parse_word = one_of(what, *allowed)

    def parse(value: Any) -> tuple[Word, ...]:
        words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
        if not isinstance(words, (list, tuple)) or not words:
            raise UsageError(f"{_shown(value)} is no list of {what}s", f"Use some of {', '.join(allowed)}")
        return tuple(map(parse_word, words))

    return parse


def parse_folder(value: Any) -> str:
    """An absolute path; ``~`` is the user's home.

    Raises:
        UsageError: no path, or a relative one, which would mean another folder in every process.
    """
    try:
        path = os.path.expanduser(os.fspath(value))
        os.fsencode(path)
    except (TypeError, ValueError):  # no path; a NUL in a user's name, or what no file system can spell
        path = ""
    if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
        raise UsageError(f"{_shown(value)} is no absolute path", "Write it from / on")
    return os.path.normpath(path)


def parse_folders(value: Any) -> tuple[str, ...]:
    """Absolute paths, as a list, separated by colons or as one PathLike, in the order in which they are searched.

    Raises:
        UsageError: one of them is none.
    """
    parts: Sequence[Any] = [value] if isinstance(value, os.PathLike) else value
    if isinstance(value, str):
        parts = [part for part in value.split(":") if part]
    if not isinstance(parts, (list, tuple)):
        raise UsageError(f"{_shown(value)} is no list of folders", "Separate them by colons")
    return tuple(dict.fromkeys(map(parse_folder, parts)))


def parse_aliases(value: Any) -> Mapping[str, tuple[str, ...]]:
    """A table of names, each with the candidates it stands for, in the order in which they are tried.

    Raises:
        UsageError: it is none.
    """
    hint = 'Write, under [aliases], llama-70b = ["meta-llama/Llama-3.1-70B-Instruct"]'
    if not isinstance(value, dict):
        raise UsageError("aliases are no table", hint)
    aliases: dict[str, tuple[str, ...]] = {}
    for name, candidates in value.items():
        listed = [candidates] if isinstance(candidates, str) else candidates
        if not isinstance(listed, list) or not listed or not all(isinstance(item, str) for item in listed):
            raise UsageError(f"alias {name!r} is no list of names", hint)
        aliases[name] = tuple(listed)
    return aliases
