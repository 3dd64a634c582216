"""Where ``warm`` brings a model: the tier or folder that was asked for, and what must not be asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._fetch.local import local_folder
from fastload._store.patience import ask_all
from fastload._store.ref import is_spellable
from fastload._store.root import Root
from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastload._fetch.warmrequest import WarmRequest
    from fastload.options import Settings

_PATIENCE_S = 0.5
_OWN_FOLDER = "Give a folder of its own"


def choose_target(request: WarmRequest, settings: Settings) -> Root:
    """The tier that is written.

    Raises:
        UsageError: it is none; or what is asked for would wait for ever, or spread files over what is others'.
    """
    target = _target_of(request, settings)
    _check_request(request, settings, target)
    return target


def _target_of(request: WarmRequest, settings: Settings) -> Root:
    if request.to == "local":
        return Root(local_folder(settings), label="local")
    if request.to == "shared":
        if not settings.shared:
            raise UsageError("there is no shared tier", "Set FASTLOAD_SHARED, or name a folder: --to /mnt/models")
        return Root(settings.shared[0], label=f"shared:{settings.shared[0]}")
    if not is_spellable(request.to) or not os.path.isabs(request.to):
        raise UsageError(f"--to {request.to!r} is no tier", "Write local, shared, or an absolute path")
    path = os.path.normpath(request.to)
    return Root(path, label="local" if path == settings.local else f"shared:{path}")


def _check_request(request: WarmRequest, settings: Settings, target: Root) -> None:
    if request.slots is not None and request.slots < 1:
        raise UsageError(f"--slots {request.slots} lets nobody copy", "Give at least 1")
    if request.plain is not None:
        _check_plain(request.plain, _real_roots(settings, target))
        if os.path.isdir(request.model) and _nested(request.plain, os.fspath(request.model)):
            raise UsageError(f"--plain {request.plain!r} and its source lie in each other", _OWN_FOLDER)


def _real_roots(settings: Settings, target: Root) -> list[str]:
    """Without links; of a mount that does not answer, as it was written."""
    near = [os.path.realpath(path) for path in (settings.local, target.path) if path]
    shared = [Root(path, label=f"shared:{path}") for path in settings.shared if path != target.path]
    asked = ask_all(shared, lambda root: os.path.realpath(root.path), patience_s=_PATIENCE_S)
    return [*near, *(real for _, real in asked.replies), *(root.path for root, _ in asked.silent)]


def _check_plain(folder: str, roots: Iterable[str]) -> None:
    """A folder of its own below a root is a model of that tier; a root, or a part of a repo, is not to be one."""
    for root in roots:
        below = os.path.relpath(os.path.realpath(folder), root)
        is_above = os.path.commonpath([os.path.realpath(folder), root]) == os.path.realpath(folder)
        if is_above or (below.startswith(("models--", ".")) and not below.startswith("..")):
            raise UsageError(f"--plain {folder!r} would mix its files with those of the tier {root!r}", _OWN_FOLDER)


def _nested(one: str, other: str) -> bool:
    real = [os.path.realpath(one), os.path.realpath(other)]
    return os.path.commonpath(real) in real
