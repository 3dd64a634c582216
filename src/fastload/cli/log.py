"""``--log-format json``: each line of stderr as one JSON object, for whoever collects the logs of a cluster."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from fastload.cli.text import show_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMATS = ("text", "json")
_FLAG = "--log-format"
_PREFIX = "fastload: "


def find_log_format(words: Sequence[str]) -> str:
    """The value of ``--log-format``: known before the words are parsed, since it holds for what is wrong with these."""
    for number, word in enumerate(words):
        if word.startswith(f"{_FLAG}="):
            return word.partition("=")[2]
        if word == _FLAG:
            return words[number + 1] if number + 1 < len(words) else "text"
    return "text"


@contextmanager
def logging_as(log_format: str) -> Iterator[None]:
    """While it lasts, stderr is one JSON object a line, if that is the format, with what the logger fastload says."""
    if log_format != "json":
        yield
        return
    plain, logger = sys.stderr, logging.getLogger("fastload")
    lines = JsonLines(plain)
    handler, level = _Handler(lines), logger.level
    sys.stderr = lines
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        lines.flush_rest()
        logger.removeHandler(handler)
        logger.setLevel(level)
        sys.stderr = plain


class JsonLines(io.TextIOBase):
    """A stream for text that becomes records by lines; no terminal, so that progress comes in lines too."""

    def __init__(self, below: TextIO) -> None:
        self._below = below
        self._rest = ""

    def writable(self) -> bool:
        """Of course."""
        return True

    def isatty(self) -> bool:
        """Never: a bar that redraws itself is no record."""
        return False

    def fileno(self) -> int:
        """The descriptor below, for faulthandler and child processes."""
        return self._below.fileno()

    def write(self, text: str) -> int:
        """Whole lines go out; what is left waits for its end."""
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            if line.strip():
                self.write_record("info", line.removeprefix(_PREFIX))
        return len(text)

    def flush(self) -> None:
        """What is no whole line yet stays. Python asks once more at the end, when the stream below may be closed."""
        if not self._below.closed:
            self._below.flush()

    def flush_rest(self) -> None:
        """At the end a line needs no end."""
        if self._rest:
            self.write("\n")

    def write_record(self, level: str, message: str, **facts: Any) -> None:
        """One line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._below.write(show_json({"time": now, "level": level, "message": message, **facts}) + "\n")
        self._below.flush()


class _Handler(logging.Handler):
    def __init__(self, lines: JsonLines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write_record(record.levelname.lower(), record.getMessage(), logger=record.name)


def tell_failure(message: str, facts: dict[str, Any], exit_code: int) -> None:
    """The last word of a command that failed."""
    if isinstance(sys.stderr, JsonLines):
        sys.stderr.write_record("error", message, error=facts, exit_code=exit_code)
    else:
        print(f"{_PREFIX}{message}", file=sys.stderr)


def tell_traceback(text: str) -> None:
    """Of a bug: one record, where records are wanted."""
    if isinstance(sys.stderr, JsonLines):
        sys.stderr.write_record("error", text.splitlines()[-1], traceback=text)
    else:
        print(text, end="", file=sys.stderr)
