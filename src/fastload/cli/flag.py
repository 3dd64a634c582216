"""Flags whose values are parsed where they are typed, so that an error names the flag."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, TypeVar

from fastload.errors import UsageError

if TYPE_CHECKING:
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
