"""From arguments to an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import fastload
from fastload._load.importing import Leaving
from fastload._read.file import translate
from fastload._store.filesystem import translate_write
from fastload.cli.bug import explain_bug, show_traceback
from fastload.cli.ending import Terminated, exit_code_of
from fastload.cli.log import FORMATS, find_log_format, logging_as, tell_failure, tell_traceback
from fastload.cli.several import PartialError
from fastload.cli.signals import signals_raised
from fastload.cli.stdout import let_go_of, stdout_kept
from fastload.cli.termination import TERMINATION_LOG, leave_termination_message
from fastload.cli.text import show_json
from fastload.errors import FastloadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

_VERBS = ("warm", "load", "verify", "resolve", "inspect", "ls", "rm", "prune", "pin", "unpin", "doctor", "bench")
"""Each is a module beside this one."""
_TERMINATION_LOG = TERMINATION_LOG


def run(words: Sequence[str], verbs: Sequence[ModuleType]) -> int:
    """Run one of the ``verbs``; the exit code says how it went (see ``fastload --help``)."""
    _open_what_is_closed()
    with logging_as(find_log_format(words)):
        return _run(words, verbs)


def import_verbs(words: Sequence[str] = ()) -> Sequence[ModuleType]:
    """The one that is asked for, else all. Each imports what it needs, and all of that takes a tenth of a second."""
    first = next((word for word in words if not word.startswith("-")), None)
    return [import_module(f"fastload.cli.{name}") for name in ([first] if first in _VERBS else _VERBS)]


def _run(words: Sequence[str], verbs: Sequence[ModuleType]) -> int:
    as_json = "--json" in words
    try:
        with signals_raised(Leaving(KeyboardInterrupt), Leaving(Terminated)):
            _make_printable()
            with stdout_kept():
                parsed = build_parser(verbs).parse_args(words)
                parsed.run(parsed)
    except BrokenPipeError:
        return 0  # whoever read us has left, as `head` does: no error
    except (FastloadError, PartialError, OSError, KeyboardInterrupt, Terminated) as error:
        return _fail(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - nothing goes on after it; but a bug has an exit code and a reason, too
        with _telling(sys.stderr):
            tell_traceback(show_traceback(error))
        return _fail(error, as_json=as_json)
    return 0


@contextmanager
def _telling(stream: TextIO) -> Iterator[None]:
    """A stream that takes nothing must not hide how it went: the exit code and the termination log still say it."""
    try:
        yield
        stream.flush()
    except OSError:
        let_go_of(stream)


def _explain(error: BaseException) -> tuple[dict[str, Any], int]:
    """The facts and the exit code that an error means."""
    if isinstance(error, OSError) and not isinstance(error, FastloadError):
        error = _translate(error)
    if isinstance(error, PartialError):
        error = error.first
    if isinstance(error, FastloadError):
        return error.to_dict(), exit_code_of(error)
    if isinstance(error, Terminated):
        return {"type": "Terminated", "message": "terminated"}, exit_code_of(error)
    if isinstance(error, Exception):
        return explain_bug(error), exit_code_of(error)
    return {"type": "Interrupted", "message": "interrupted"}, exit_code_of(error)


def _translate(error: OSError) -> FastloadError:
    """What the system says of files is ours by the time it gets here; what is left is a module's, or stdout's."""
    if error.filename is not None:
        return translate(os.fsdecode(error.filename), error)
    return translate_write("stdout", error)


def _open_what_is_closed() -> None:
    """Whoever closed a stream (``>&-``) wants nothing of it; Python has None there, and ``print`` then means stdout."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process


def _make_printable() -> None:
    """A name that the terminal's encoding lacks is shown by its code point, not by a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours, so that ``--json`` and the termination log have them too."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"See {self.prog} --help")


def build_parser(modules: Sequence[ModuleType] = ()) -> argparse.ArgumentParser:
    """These verbs, else all, and their flags."""
    parser = _Parser(
        prog="fastload",
        description="Bring an LLM's weights to where they compute.",
        epilog=list_exit_codes(),
        allow_abbrev=False,  # what is not --json must not be taken for it
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=f"fastload {fastload.__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb in modules or import_verbs():
        name = verb.__name__.rpartition(".")[2]
        own = verbs.add_parser(name, help=verb.HELP, description=verb.HELP, allow_abbrev=False)
        verb.add_arguments(own)
        own.add_argument("--json", action="store_true", dest="as_json", help="one JSON object is all of stdout")
        own.add_argument("--log-format", choices=FORMATS, default="text", help="of stderr; json: an object a line")
        own.set_defaults(run=verb.run)
    return parser


def _exit_codes(error: type[FastloadError]) -> Iterator[tuple[int, str]]:
    for kind in error.__subclasses__():
        yield kind.exit_code, kind.__name__
        yield from _exit_codes(kind)


def list_exit_codes() -> str:
    """Those of the verbs that are imported, which may have errors of their own."""
    lines = [f"  {code:3} {name}" for code, name in sorted(_exit_codes(FastloadError))]
    return "\n".join(["exit codes: 0 ok, 1 bug, 130 Ctrl-C, 143 SIGTERM, and", *lines])


def _fail(error: BaseException, *, as_json: bool) -> int:
    facts, exit_code = _explain(error)
    with _telling(sys.stderr):
        tell_failure(facts["message"], facts, exit_code)
    if as_json:
        others = error.facts if isinstance(error, PartialError) else {}
        with _telling(sys.stdout):
            print(show_json({"schema": 1, **others, "error": facts, "exit_code": exit_code}))
    leave_termination_message({"error": facts, "exit_code": exit_code}, _TERMINATION_LOG)
    return exit_code
