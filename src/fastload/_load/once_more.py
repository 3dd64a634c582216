"""What is done where a file, proven by a digest of the whole, is not right: it is mended, and all is loaded once more.

Block digests let a block be read again, or brought from another tier, while the load runs. A digest of the whole says
at the end of the file that something in it was wrong, and nobody knows what: tensors may have been filled with it. So
the load ends, gives its memory back, looks at the file again past the page cache, and begins anew. A stream cannot:
what it handed out is in use.
"""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from fastload._fetch.bring.through import LeftWrongError
from fastload._fetch.find.at_path import of_tier, stored_at
from fastload._fetch.find.resolve import tiers_of
from fastload._fetch.verify.verify import Examination, examine
from fastload._load.spent import Spent, spent_on_look, spent_on_try
from fastload._verify.digest import count_blocks
from fastload.errors import FastloadError, IntegrityError, escaped

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._fetch.verify.verify import Verification
    from fastload._load.request import Request
    from fastload.options import Settings
    from fastload.report import Report

_log = logging.getLogger("fastload")
_LOCAL, _PATH = "local", "path"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Before:
    """What had been done when the try began that came to its end: nothing, where that was the first one."""

    said: str = ""
    spent: Spent = field(default_factory=Spent)

    def add_to(self, report: Report) -> Report:
        """``report`` of that try, with what was read before, and why it was."""
        if not self.said:
            return report
        return replace(self.spent.add_to(report), evidence_reason=f"{report.evidence_reason}; {self.said}")


@dataclass(frozen=True, slots=True)
class _Cure:
    """What makes the second try better than the first."""

    request: Request
    said: str
    spent: Spent


def once_more(request: Request, load: Callable[[Request, Callable[[Report], None]], Result]) -> tuple[Result, Before]:
    """What ``load`` returns, and what had been done before; it hands on its report where a file turns out wrong.

    Raises:
        IntegrityError: the file is wrong, and nobody has a better one that may be asked.
    """
    tried: list[Report] = []
    try:
        return load(request, tried.append), Before()
    except IntegrityError as exc:
        if not exc.is_whole or request.group is not None:
            raise
        if not isinstance(exc, LeftWrongError) and not os.path.isfile(exc.path):
            raise
        error = exc
    traceback.clear_frames(error.__traceback__)  # they hold the memory of the load
    cure = _find_cure(request, error)
    before = Before(cure.said, sum(map(spent_on_try, tried), cure.spent))
    _log.warning("%s: %s; it is loaded once more", escaped(request.source.name), cure.said)
    try:
        return load(cure.request, tried.append), before
    except FastloadError as exc:
        if cure.request is request:
            raise
        raise error from exc  # other tiers do not have it


def _find_cure(request: Request, error: IntegrityError) -> _Cure:
    wrong = f"{escaped(os.path.basename(error.path))} {{}} ({error.found})"
    if isinstance(error, LeftWrongError):
        said = wrong.format("was wrong where an earlier run had left some of it on the local tier")
        return _Cure(replace(request, settings=_in_time(request, write_through="off")), said, Spent())
    try:
        found = _look(request, repairs=False)
        spent = spent_on_look(found)
        if not found.findings:
            said = wrong.format("was wrong when it was read") + ", and is right as it is stored"
            return _Cure(request, said, spent)
        if _is_local(found, request.settings):
            mended = _look(request, repairs=True)
            spent += spent_on_look(mended)
            if _is_mended(mended):
                said = wrong.format("was wrong on the local tier") + ", and came again from another"
                return _Cure(request, said, spent)
    except FastloadError as exc:
        raise error from exc
    settings = _without(request, found)
    if settings is None:
        raise error
    said = wrong.format(f"is wrong on {escaped(found.tier)}") + ", so that others were asked"
    asked = sum(count_blocks(file.nbytes) for file in found.files if file.findings)
    return _Cure(replace(request, settings=settings), said, spent + Spent(blocks_repaired=asked))


def _look(request: Request, *, repairs: bool) -> Verification:
    """At the content of all shards, past the page cache where that has it wrong."""
    source = request.source
    wish = Examination(
        source.model, source.revision, repairs=repairs, records=False, include=("*.safetensors",), paces_local=False
    )
    return examine(wish, _in_time(request))


def _is_local(found: Verification, settings: Settings) -> bool:
    """True on the local tier, also where a path leads into it."""
    there = stored_at(found.path)
    return found.tier == _LOCAL or (there is not None and of_tier(there, tiers_of(settings)).tier == _LOCAL)


def _is_mended(found: Verification) -> bool:
    return found.is_right


def _in_time(request: Request, **changes: Any) -> Settings:
    """Its settings with ``changes``, for the time that is left."""
    return replace(request.settings, deadline=request.deadline.left_s, **changes)


def _without(request: Request, found: Verification) -> Settings | None:
    """Settings that leave out the tier that has it wrong, for the time that is left; None: a path is on no tier."""
    settings = _in_time(request)
    if found.tier == _PATH:
        return None
    if found.tier == _LOCAL:
        return replace(settings, tiers=tuple(tier for tier in settings.tiers if tier != _LOCAL))
    others = tuple(root for root in settings.shared if os.path.commonpath((root, found.path)) != root)
    return replace(settings, shared=others)
