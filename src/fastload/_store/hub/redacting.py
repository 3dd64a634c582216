"""What libraries say while they bring a file, without what opens doors: what signs a link, and tokens.

huggingface_hub logs whole links, on a broken connection at the default level; the libraries below it log each request,
and so does urllib3, by which fastload asks. Whoever reads a pod's log could fetch a gated model by such a link until it
expires. So for as long as the call lasts, what these libraries log is rewritten as it is made, before any handler sees
it, be the handler added meanwhile. The rest of the program's log is left alone. A program that sets a record factory of
its own meanwhile, without asking the one that is there, has their records as they are.
"""

from __future__ import annotations

import logging
import re
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_THEIRS = frozenset(
    {"huggingface_hub", "hf_xet", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "filelock"}
)
"""The library and those that it asks by, of 1.x and 2.x; each logs by its own name."""
_SIGNING = (
    r"signature|credential|security-token|policy|key-pair-id|awsaccesskeyid|googleaccessid|sig"
    r"|(?:access|refresh|id|auth)?[_-]?token|api[_-]?key|password|secret"
)
"""The parameters that sign links of S3, CloudFront, GCS and Azure, and others that are nobody's business."""
_REDACTIONS = (
    # An `@` in a password need not be written otherwise; a slash must.
    (re.compile(r"(?<=://)[^\s/?#]*@"), "…@"),
    (re.compile(r"\?[^\s?'\"<>]*=[^\s'\"<>]*"), "?…"),
    # A query that a quote or a space has torn goes on behind it.
    (re.compile(rf"(?i)(?<![a-z])((?:{_SIGNING})(?:=|%3d))[^\s&;'\"<>…]+"), r"\1…"),
    # Headers: alone, as a dict has them, or as pairs of bytes.
    (re.compile(r"(?i)(\b(?:set-)?cookie['\"]?\s*[:,]\s*b?['\"]?)[^'\"\r\n]+"), r"\1…"),
    (
        re.compile(
            r"(?i)(\b(?:(?:proxy-)?authorization|[\w-]{0,32}token)['\"]?\s*[:,=]\s*b?['\"])(?:(?:basic|bearer)\s+)?[^\s'\"]+"
            r"|(\b(?:(?:proxy-)?authorization|x-[\w-]{0,32}token)\s*[:=]\s*)(?:(?:basic|bearer)\s+)?[^\s'\",}]+"
        ),
        r"\1\2…",
    ),
    (re.compile(r"(?i)\bbearer\s+[^\s'\"]+"), "…"),
    (re.compile(r"\b(?:hf|api_org)_(?:jwt_)?[A-Za-z0-9.-]{16,}[^\s'\"]*"), "…"),
    (re.compile(r"(?<![\w-])eyJ[\w-]{6,}\.[\w.-]+"), "…"),  # a JSON web token
)
_FORMATTER = logging.Formatter()


class SaidError(Exception):
    """The cause of an error of ours: what huggingface_hub raised, as text that may be shown."""


def redact(text: str) -> str:
    """``text`` without the queries of links, and without passwords and tokens."""
    for secret, shown in _REDACTIONS:
        text = secret.sub(shown, text)
    return text


def said(exc: Exception) -> SaidError:
    """The same failure, in the same place, to be chained instead of ``exc``, whose text may hold a signed link."""
    return SaidError(f"{type(exc).__name__}: {redact(_read(lambda: str(exc)))}").with_traceback(exc.__traceback__)


@contextmanager
def redacting() -> Iterator[None]:
    """While it lasts, no handler is shown a signed link or a token that these libraries log."""
    caller = object()
    try:  # at once: an interrupt in the midst of what follows leaves nothing behind either
        _installed.add(caller)
        yield
    finally:
        _installed.remove(caller)


class _Factory:
    """Makes records as ``inner`` does; those of these libraries without secrets, while anybody wants that."""

    def __init__(self, inner: Callable[..., logging.LogRecord], callers: set[object]) -> None:
        self.inner = inner
        self._callers = callers

    def __call__(self, *args: object, **more: object) -> logging.LogRecord:
        record = self.inner(*args, **more)
        if self._callers and _is_theirs(record.name):
            _redact_record(record)
        return record


class _Installed:
    """One record factory for all who want it: the last one to go takes it away."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers: set[object] = set()
        self._factory: _Factory | None = None

    def add(self, caller: object) -> None:
        with self._lock:
            self._callers.add(caller)
            if self._factory is None:
                self._factory = _Factory(logging.getLogRecordFactory(), self._callers)
                logging.setLogRecordFactory(self._factory)

    def remove(self, caller: object) -> None:
        """Where somebody has set another factory above it, it stays below that, and does nothing any more."""
        with self._lock:
            self._callers.discard(caller)
            if self._callers or self._factory is None:
                return
            if logging.getLogRecordFactory() is self._factory:
                logging.setLogRecordFactory(self._factory.inner)
            self._factory = None


_installed = _Installed()


def _redact_record(record: logging.LogRecord) -> None:
    record.msg, record.args = redact(_read(record.getMessage, lambda: str(record.msg))), ()
    if record.exc_info:
        exc_info = record.exc_info
        record.exc_text, record.exc_info = redact(_read(lambda: _FORMATTER.formatException(exc_info))), None


def _read(*ways: Callable[[], str]) -> str:
    """By the first way that works: that a library's message cannot be shown is no reason to end a download."""
    for way in ways:
        with suppress(Exception):  # whatever the text of an argument raises; logging swallows it too
            return way()
    return "(it cannot be shown)"


def _is_theirs(name: object) -> bool:
    """A record that is made of what another process has sent gets its name later."""
    return isinstance(name, str) and name.partition(".")[0] in _THEIRS
