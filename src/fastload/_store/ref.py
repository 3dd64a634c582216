"""What the user typed, taken apart: a path, or a name with what it may stand for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from fastload._format.index import INDEX_SUFFIX, SHARD_SUFFIX
from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATH_STARTS = ("/", "./", "../", "~")
_PATH_SUFFIXES = (SHARD_SUFFIX, INDEX_SUFFIX)
_SPELLABLE = re.compile("[^\0\ud800-\udc7f\udd00-\udfff]+")
"""What the system takes for a path: no NUL, and of the surrogates only those that stand for bytes that are no UTF-8."""
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_REPO = re.compile(rf"(?:{_PART}/)?{_PART}")
_REVISION = re.compile(r"(?![/.])(?!.*(?:\.\.|//|/\.|@\{|\.lock$))[!-.0-~][!-~]*(?<![/.])")
"""What git takes for the name of a branch or tag, as far as it matters to a path (git-check-ref-format)."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME_LIMIT = 96
DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A repository, or a bare folder name, at one revision."""

    repo: str
    revision: str | None

    @property
    def is_bare(self) -> bool:
        """True if it is the name of a folder on a tier, which no hub is asked for."""
        return "/" not in self.repo

    @property
    def is_pinned(self) -> bool:
        """True if it names a commit, which never means anything else tomorrow."""
        return self.revision is not None and is_commit(self.revision)

    @property
    def moving_revision(self) -> str | None:
        """The branch or tag that it follows; None if it names a commit."""
        return None if self.is_pinned else self.revision or DEFAULT_REVISION

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


@dataclass(frozen=True, slots=True)
class Name:
    """A name, and the candidates that it stands for: several only where it is an alias."""

    text: str
    candidates: tuple[Candidate, ...]
    is_alias: bool
    aliases: tuple[str, ...] = ()
    """All that there are: one of them may have been meant."""


def is_spellable(text: object) -> TypeGuard[str]:
    """True if a path or a part of one can be spelled so."""
    return isinstance(text, str) and _SPELLABLE.fullmatch(text) is not None


def name_of(model: object) -> str:
    """What the caller gave as a model, as a text; what cannot be one is told so when it is parsed."""
    return str(os.fspath(model) if isinstance(model, os.PathLike) else model)


def is_commit(revision: str) -> bool:
    """True for the 40 hex digits of a commit."""
    return _COMMIT.fullmatch(revision) is not None


def parse_ref(
    model: str | os.PathLike[str], revision: str | None, aliases: Mapping[str, tuple[str, ...]]
) -> str | Name:
    """What ``model`` means: an absolute path, or a name. A PathLike is always a path; a str is, if it looks like one.

    Args:
        model: what the user typed.
        revision: ``revision=``, which a path does not have.
        aliases: candidates by alias.

    Raises:
        UsageError: it is neither; or a bare word that is also a folder here; or a revision is said twice, or cannot be.
    """
    text: object = os.fspath(model) if isinstance(model, os.PathLike) else model
    if not is_spellable(text):
        raise UsageError(f"{text!r} is no model", "Give a name such as org/name, or the path of a folder")
    if revision is not None and not isinstance(revision, str):
        raise UsageError(f"revision= got {type(revision).__name__}", "Give a str")
    if isinstance(model, os.PathLike) or _looks_like_a_path(text):
        if revision is not None:
            raise UsageError(f"revision {revision!r} of a path", "Only names have revisions: leave revision= out")
        return _absolute(text)
    return _parse_name(text, revision, aliases)


def _parse_name(text: str, revision: str | None, aliases: Mapping[str, tuple[str, ...]]) -> Name:
    candidate = parse_candidate(text, revision)
    if revision is None and candidate.is_bare and os.path.isdir(text):  # no folder has a revision
        name = f"'{candidate.repo}' with the revision {candidate.revision!r}" if "@" in text else f"'{text}@main'"
        raise UsageError(
            f"{text!r} may be a name or the folder here",
            f"Write './{text}' for the folder, or {name} for the name. A plain folder on a tier has no revision: "
            "for that, run from another folder",
        )
    if candidate.repo in aliases:
        stands_for = tuple(parse_candidate(item, candidate.revision) for item in aliases[candidate.repo])
        return Name(text, stands_for, is_alias=True, aliases=tuple(aliases))
    return Name(text, (candidate,), is_alias=False, aliases=tuple(aliases))


def parse_candidate(text: str, revision: str | None = None) -> Candidate:
    """``org/name``, ``org/name@revision`` or a folder's name; ``revision`` is what was said of it elsewhere.

    Raises:
        UsageError: it cannot be a name, or has two revisions.
    """
    repo, _, written = text.partition("@")
    if written and revision is not None and written != revision:
        raise UsageError(f"{text!r} with revision {revision!r}", "Say the revision once")
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or len(repo) > _NAME_LIMIT:
        hint = "A name is org/name, org/name@revision or a folder's name; a path begins with '/', './', '../' or '~'"
        raise UsageError(f"{text!r} is no name of a model", hint)
    wanted = written if text.endswith("@") else written or revision
    if wanted is not None and not _REVISION.fullmatch(wanted):
        raise UsageError(f"{wanted!r} is no revision", "Give a branch, a tag or a commit of 40 hex digits")
    return Candidate(repo, wanted)


def _looks_like_a_path(text: str) -> bool:
    return text in {".", ".."} or text.startswith(_PATH_STARTS) or text.endswith(_PATH_SUFFIXES)


def _absolute(text: str) -> str:
    try:
        return os.path.abspath(os.path.expanduser(text))
    except OSError as exc:
        raise UsageError(f"{text!r} is relative to a folder that is gone", "Give an absolute path") from exc
