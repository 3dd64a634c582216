"""The tier that ``warm`` is asked for, and what must not be asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._fetch.find.local import local_folder
from fastload._format.gguf import GGUF_SUFFIX
from fastload._format.index import SHARD_SUFFIX
from fastload._store.layout import find_repo
from fastload._store.ownership import own_folder
from fastload._store.patience import ask_all
from fastload._store.ref import is_spellable
from fastload._store.root import Root
from fastload._tier import LOCAL, TierKind, shared_tier
from fastload._verify.path import OURS
from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastload._fetch.warm.request import WarmRequest
    from fastload.options import Settings

_PATIENCE_S = 0.5
_OWN_FOLDER = "Give a folder of its own"
_CACHE = "Give the root of a cache, which has a folder models--org--name; real files of one model in DIR: --plain DIR"
_WEIGHTS = (SHARD_SUFFIX, GGUF_SUFFIX)
_MARKS = frozenset({"pytorch_model.bin", "model_index.json", "config.json", OURS})
"""By one of these at its top a folder is a model's."""
_CONFIGS = frozenset({"model_index.json", "config.json"})
"""By weights and one of these it is one also for what lies below: a home may have a stray file of either kind."""


def choose_root(request: WarmRequest, settings: Settings) -> Root:
    """The tier that is written.

    Raises:
        UsageError: it is none; or what is asked for would wait for ever, or spread files over what is others'.
    """
    root = _root_of(request, settings)
    _check_request(request, settings, root)
    return root


def _root_of(request: WarmRequest, settings: Settings) -> Root:
    if request.to == TierKind.LOCAL:
        return Root(local_folder(settings), LOCAL)
    if request.to == TierKind.SHARED:
        if not settings.shared:
            raise UsageError("there is no shared tier", "Set FASTLOAD_SHARED, or name a folder: --to /mnt/models")
        return Root(settings.shared[0], shared_tier(settings.shared[0]))
    if not is_spellable(request.to) or not os.path.isabs(request.to):
        raise UsageError(f"--to {request.to!r} is no tier", "Write local, shared, or an absolute path")
    path = os.path.normpath(request.to)
    if path not in {settings.local, *settings.shared}:
        _check_cache(path)
    return Root(path, LOCAL if path == settings.local else shared_tier(path))


def _check_cache(path: str) -> None:
    """The root of a cache is no part of another one and no model: what is made in it would be corrupt to others' tools.

    A cache that is there stays one, whatever lies in or above it.
    """
    if any(own_folder(written) for written in (path, os.path.realpath(path))):
        raise UsageError(f"--to {path!r} is a part of a cache or of a model", _CACHE)
    if _is_cache(path):
        return
    real = os.path.realpath(path)
    model = real if _is_model(real) else next(filter(_is_whole_model, _list_above(real)), None)
    if model is not None:
        raise UsageError(f"--to {path!r} is a model, or lies in one ({model})", _CACHE)


def _list_above(path: str) -> Iterator[str]:
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


def _is_model(folder: str) -> bool:
    return any(name.endswith(_WEIGHTS) or name in _MARKS for name in _list_names(folder))


def _is_whole_model(folder: str) -> bool:
    """A cache with a model beside its repos is one all the same."""
    names = _list_names(folder)
    has_weights = any(name.endswith(_WEIGHTS) for name in names) or "model_index.json" in names
    return has_weights and not _CONFIGS.isdisjoint(names) and not _is_cache(folder)


def _is_cache(folder: str) -> bool:
    return any(name == ".locks" or find_repo(name) is not None for name in _list_names(folder))


def _list_names(folder: str) -> list[str]:
    """Of a folder that is not there yet or that this user may not list, nothing is known."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


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
    shared = [Root(path, shared_tier(path)) for path in settings.shared if path != target.path]
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
