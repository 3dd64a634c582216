"""What huggingface_hub says while it brings a file, without what opens doors: the query that signs a link, and tokens.

It logs whole links, on a broken connection at the default level; the library below it logs each request. Whoever reads
a pod's log could fetch a gated model by such a link until it expires. So for as long as the call lasts, what these
libraries log is rewritten before any handler sees it. The rest of the program's log is left alone.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_THEIRS = frozenset(
    {"huggingface_hub", "hf_xet", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "filelock"}
)
"""The library and those that it asks by, of 1.x and 2.x; each logs by its own name."""
_QUERY = re.compile(r"\?[^\s?'\"<>]*=[^\s'\"<>]*")
_TOKEN = re.compile(r"(?i:\bbearer\s+)[^\s'\"]+|\bhf_(?:jwt_)?[A-Za-z0-9.-]{16,}[^\s'\"]*")
_FORMATTER = logging.Formatter()


class SaidError(Exception):
    """The cause of an error of ours: what huggingface_hub raised, as text that may be shown."""


def redact(text: str) -> str:
    """``text`` without the queries of links, and without tokens."""
    return _TOKEN.sub("…", _QUERY.sub("?…", text))


def said(exc: Exception) -> SaidError:
    """The same failure, in the same place, to be chained instead of ``exc``, whose text may hold a signed link."""
    return SaidError(f"{type(exc).__name__}: {redact(str(exc))}").with_traceback(exc.__traceback__)


@contextmanager
def redacting() -> Iterator[None]:
    """While it lasts, no handler is shown a signed link or a token that these libraries log."""
    redaction = _Redaction()
    handlers = _list_handlers()
    for handler in handlers:
        handler.addFilter(redaction)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(redaction)


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if _is_theirs(record.name):
            record.msg, record.args = redact(_read(record)), ()
            if record.exc_info:
                record.exc_text, record.exc_info = redact(_FORMATTER.formatException(record.exc_info)), None
        return True


def _list_handlers() -> list[logging.Handler]:
    """All that a record of these libraries may come to: handlers, since a logger's own filters see only its own."""
    names = [name for name in list(logging.root.manager.loggerDict) if _is_theirs(name)]
    loggers = [logging.root, *map(logging.getLogger, names)]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    if logging.lastResort is not None:
        handlers.append(logging.lastResort)
    return list(dict.fromkeys(handlers))


def _is_theirs(name: str) -> bool:
    return name.partition(".")[0] in _THEIRS


def _read(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # the arguments do not fit; that is no reason to end a download
        return str(record.msg)
