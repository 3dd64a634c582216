"""Verbs that take several names: all are tried, and the first failure is the command's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastload.cli.log import tell_failure
from fastload.errors import FastloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class PartialError(Exception):
    """Some names failed. For the command line alone: it ends with the first one's error, and ``--json`` shows all."""

    def __init__(self, first: FastloadError, facts: dict[str, Any]) -> None:
        super().__init__(str(first))
        self.first = first
        self.facts = facts


def try_each(names: Sequence[str], act: Callable[[str], dict[str, Any]], what: str) -> dict[str, Any]:
    """``act`` on each name; what it says of each, under ``what``, in order.

    Raises:
        PartialError: one or more failed.
    """
    results: list[dict[str, Any]] = []
    first: FastloadError | None = None
    for name in names:
        try:
            results.append({"model": name, **act(name)})
        except FastloadError as error:
            results.append({"model": name, "error": error.to_dict(), "exit_code": error.exit_code})
            if first is None:
                first = error
            else:
                tell_failure(str(error), error.to_dict(), error.exit_code)
    facts = {"schema": 1, what: results}
    if first is not None:
        raise PartialError(first, facts)
    return facts
