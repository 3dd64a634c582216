"""Flags that several commands have, and values parsed where they are typed, so that an error names the flag."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, TypeVar

from fastload.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

Value = TypeVar("Value")


def parsed_by(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """``parse`` as argparse's ``type=``: of what else it raises, argparse tells the name of the function."""

    def parse_text(text: str) -> Value:
        try:
            return parse(text)
        except UsageError as exc:
            raise ArgumentTypeError(str(exc)) from exc

    return parse_text


def add_progress(parser: argparse.ArgumentParser) -> None:
    """A log should say that something moves, too, so that nobody takes what is long for a hang."""
    progress = parser.add_mutually_exclusive_group()
    progress.add_argument("--progress", action="store_true", default=True, help="a bar, or lines in a log (default)")
    progress.add_argument("--no-progress", action="store_false", dest="progress", help="never")
