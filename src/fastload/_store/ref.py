"""What the user typed, taken apart."""

from __future__ import annotations

import os

from fastload.errors import ModelNotFoundError, UsageError

_PATH_STARTS = ("/", "./", "../", "~")
_PATH_SUFFIXES = (".safetensors", ".safetensors.index.json")


def parse_path(model: str | os.PathLike[str]) -> str:
    """The absolute path that ``model`` means. A PathLike always is one; a str is, if it looks like one.

    Raises:
        UsageError: it is empty, or a bare word that is also a folder here, so that it could mean two things.
        ModelNotFoundError: it is a name.
    """
    text = os.fspath(model)
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{text!r} is no model", "Give the path of a folder or of a .safetensors file")
    if not isinstance(model, str) or text in {".", ".."} or text.startswith(_PATH_STARTS) or text.endswith(_PATH_SUFFIXES):
        return os.path.abspath(os.path.expanduser(text))
    if os.path.exists(text):
        raise UsageError(f"{text!r} may be a name or the folder here", f"Write './{text}' if you mean the folder")
    hint = "Names of models are not served yet: give a path, which begins with '/', './', '../' or '~'"
    raise ModelNotFoundError(text, (), hint)
