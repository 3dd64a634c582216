"""What is done where a file, proven by a digest of the whole, is not right: it is mended, and all is loaded once more.

Block digests let a block be read again, or brought from another tier, while the load runs. A digest of the whole says
at the end of the file that something in it was wrong, and nobody knows what: tensors may have been filled with it. So
the load ends, gives its memory back, looks at the file again past the page cache, and begins anew. Where some of it was
taken from what lay on the local tier, it first begins anew without that. A stream cannot: what it handed out is in use.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from fastload._fetch.bring.through import LeftWrongError
from fastload._fetch.find.at_path import of_tier, stored_at
from fastload._fetch.find.resolve import tiers_of
from fastload._fetch.verify.examination import Examination
from fastload._fetch.verify.examine import examine
from fastload._tier import LOCAL, PATH, TierKind, parse_tier
from fastload._verify.digest import count_blocks
from fastload.errors import DeadlineError, FastloadError, IntegrityError, escaped

if TYPE_CHECKING:
    from fastload._fetch.verify.verification import Verification
    from fastload._load.request.request import Request
    from fastload._read.ledger import Ledger
    from fastload.options import Settings
    from fastload.report import Report

_log = logging.getLogger("fastload")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Before:
    """Why there was another try before the one that came to its end; nothing, where that was the first one."""

    said: str = ""

    def add_to(self, report: Report) -> Report:
        """``report`` of that try, with it; what was read before is in it, as the ledger goes through all tries."""
        return replace(report, evidence_reason=f"{report.evidence_reason}; {self.said}") if self.said else report


Load = Callable[["Request"], Result]
Loaded = tuple[Result, Before]


@dataclass(frozen=True, slots=True)
class _Cure:
    """What makes the second try better than the first."""

    request: Request
    said: str


def once_more(request: Request, load: Load[Result]) -> Loaded[Result]:
    """What ``load`` returns, and why it was called before.

    Raises:
        IntegrityError: the file is wrong, and nobody has a better one that may be asked.
    """
    request = replace(request, may_begin_anew=request.group is None)
    try:
        return load(request), Before()
    except IntegrityError as exc:
        error = exc
    if isinstance(error, LeftWrongError):
        return _load_anew(request, load, error)
    return _load_cured(request, load, error)


def _load_anew(request: Request, load: Load[Result], error: IntegrityError) -> Loaded[Result]:
    """With all of each file from where it is loaded; is one wrong there too, after something was done about it."""
    traceback.clear_frames(error.__traceback__)  # they hold the memory of the load
    said = f"{escaped(os.path.basename(error.path))} was wrong when some of it was taken from the local tier"
    _log.warning("%s: %s; it is loaded once more without that", escaped(request.source.name), said)
    anew = replace(request, may_begin_anew=False)
    try:
        return load(anew), Before(said)
    except IntegrityError as exc:
        error = exc
    found, later = _load_cured(anew, load, error)
    return found, Before(f"{said}; {later.said}")


def _load_cured(request: Request, load: Load[Result], error: IntegrityError) -> Loaded[Result]:
    """After something was done about the file that ``error`` tells of, if that can be."""
    if not error.is_whole or request.group is not None or not os.path.isfile(error.path):
        raise error
    traceback.clear_frames(error.__traceback__)
    cure = _find_cure(request, error)
    _log.warning("%s: %s; it is loaded once more", escaped(request.source.name), cure.said)
    try:
        return load(cure.request), Before(cure.said)
    except DeadlineError:
        raise
    except FastloadError as exc:
        if cure.request is request:
            raise
        raise error from exc  # other tiers do not have it


def _find_cure(request: Request, error: IntegrityError) -> _Cure:
    wrong = f"{escaped(os.path.basename(error.path))} {{}} ({error.found})"
    try:
        found = _look(request, repairs=False)
        if not found.findings:
            return _Cure(request, wrong.format("was wrong when it was read") + ", and is right as it is stored")
        if _is_local(found, request.settings):
            mended = _look(request, repairs=True)
            if _is_mended(mended):
                return _Cure(request, wrong.format("was wrong on the local tier") + ", and came again from another")
    except DeadlineError:
        request.deadline.check()  # says how much time there was, and not what of it was left
        raise
    except FastloadError as exc:
        raise error from exc
    settings = _without(request, found)
    if settings is None:
        raise error
    said = wrong.format(f"is wrong on {escaped(found.tier)}") + ", so that others were asked"
    _count_elsewhere(found, request.ledger)
    return _Cure(replace(request, settings=settings), said)


def _count_elsewhere(found: Verification, ledger: Ledger) -> None:
    """All of what was found wrong is asked of another tier."""
    for file in found.files:
        if file.findings:
            ledger.count_repaired(os.path.join(found.path, file.path), range(count_blocks(file.nbytes)))


def _look(request: Request, *, repairs: bool) -> Verification:
    """At the content of all shards, past the page cache where that has it wrong."""
    source = request.source
    wish = Examination(
        source.model, source.revision, repairs=repairs, records=False, include=("*.safetensors",), paces_local=False
    )
    return examine(wish, _settings_in_time(request), request.ledger)


def _is_local(found: Verification, settings: Settings) -> bool:
    """True on the local tier, also where a path leads into it."""
    there = stored_at(found.path)
    is_below = there is not None and of_tier(there, tiers_of(settings)).tier == LOCAL
    return is_below or parse_tier(found.tier) == LOCAL


def _is_mended(found: Verification) -> bool:
    return found.is_right


def _settings_in_time(request: Request) -> Settings:
    """For the time that is left."""
    return replace(request.settings, deadline=request.deadline.left_s)


def _without(request: Request, found: Verification) -> Settings | None:
    """Settings that leave out the tier that has it wrong, for the time that is left; None: a path is on no tier."""
    settings = _settings_in_time(request)
    tier = parse_tier(found.tier)
    if tier == PATH:
        return None
    if tier == LOCAL:
        return replace(settings, tiers=tuple(kind for kind in settings.tiers if kind is not TierKind.LOCAL))
    others = tuple(root for root in settings.shared if os.path.commonpath((root, found.path)) != root)
    return replace(settings, shared=others)
