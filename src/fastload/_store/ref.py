"""What the user typed, taken apart."""

from __future__ import annotations

import os
import re
from typing import TypeGuard

from fastload.errors import ModelNotFoundError, UsageError

_PATH_STARTS = ("/", "./", "../", "~")
_PATH_SUFFIXES = (".safetensors", ".safetensors.index.json")
_SPELLABLE = re.compile("[^\0\ud800-\udc7f\udd00-\udfff]+")
"""What the system takes for a path: no NUL, and of the surrogates only those that stand for bytes that are no UTF-8."""


def is_spellable(text: object) -> TypeGuard[str]:
    """True if a path or a part of one can be spelled so."""
    return isinstance(text, str) and _SPELLABLE.fullmatch(text) is not None


def parse_path(model: str | os.PathLike[str]) -> str:
    """The absolute path that ``model`` means. A PathLike always is one; a str is, if it looks like one.

    Raises:
        UsageError: it is no path, or a bare word that is also a folder here, so that it could mean two things.
        ModelNotFoundError: it is a name.
    """
    text: object = os.fspath(model) if isinstance(model, os.PathLike) else model
    if not is_spellable(text):
        raise UsageError(f"{text!r} is no model", "Give the path of a folder or of a .safetensors file")
    if isinstance(model, os.PathLike) or _looks_like_a_path(text):
        return _absolute(text)
    if os.path.exists(text):
        raise UsageError(f"{text!r} may be a name or the folder here", f"Write './{text}' if you mean the folder")
    hint = "Names of models are not served yet: give a path, which begins with '/', './', '../' or '~'"
    raise ModelNotFoundError(text, (), hint)


def _looks_like_a_path(text: str) -> bool:
    return text in {".", ".."} or text.startswith(_PATH_STARTS) or text.endswith(_PATH_SUFFIXES)


def _absolute(text: str) -> str:
    try:
        return os.path.abspath(os.path.expanduser(text))
    except OSError as exc:
        raise UsageError(f"{text!r} is relative to a folder that is gone", "Give an absolute path") from exc
