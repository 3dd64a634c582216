"""What vLLM was given for a model, as fastload takes it: a name, or the folder that a name was found at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastload._fetch.api import resolve, warm
from fastload._fetch.find.origin import find_origin
from fastload._store.ref import is_commit
from fastload._tier import LOCAL, parse_tier
from fastload.errors import ModelNotFoundError
from fastload.integrations.names import bring, is_name
from fastload.integrations.vllm.files import is_mistrals
from fastload.options import decide_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload.options import Options


class Model(NamedTuple):
    """What :func:`fastload.stream` is to be called with."""

    model: str | Path
    revision: str | None = None
    subfolder: str | None = None


def with_revision(name: str, revision: str | None) -> str:
    """``org/name@revision``."""
    return name if revision is None or "@" in name else f"{name}@{revision}"


def find_model(given: str, revision: str | None, names: Mapping[str, str], options: Options) -> Model:
    """What to load for ``given``, which is a name, or a path, perhaps the one that stands in ``names`` for a name.

    A name is better than the path it was found at: its load may be kept on the local tier.
    But the config came from that path, so where the name means something else by now, the path is loaded.
    Where the path is gone, it is the same commit that must be found.
    """
    name = names.get(given)
    if is_name(given):
        wanted = Model(given, revision) if name is None else Model(_at_commit(name, given))
        bring(str(wanted.model), wanted.revision, options)
        return wanted
    if name is not None and _leads_to(name, given, options):
        return Model(name)
    return Model(Path(given).absolute())


def _at_commit(name: str, path: str) -> str:
    """``name`` at the commit that the folder of a snapshot is called by; ``path`` if it is called otherwise."""
    commit = os.path.basename(path)
    return f"{name.partition('@')[0]}@{commit}" if is_commit(commit) else path


def _leads_to(name: str, path: str, options: Options) -> bool:
    try:
        found = resolve(name, options=options)
    except ModelNotFoundError:
        return False
    is_same = found.commit is not None and found.commit == os.path.basename(path)
    return found.path == path or (is_same and _have_one_format(found.path, path))


def _have_one_format(folder: str, other: str) -> bool:
    """``warm`` leaves Mistral's own files out where the same weights are in others, which have other names."""
    return is_mistrals(os.listdir(folder)) == is_mistrals(os.listdir(other))


def find_folder(found: Model, options: Options) -> str:
    """Where the files of ``found`` are."""
    if isinstance(found.model, Path):
        return str(found.model)
    return resolve(found.model, revision=found.revision, options=options).path


def bring_matches(found: Model, patterns: Sequence[str], options: Options) -> str | None:
    """Bring what ``patterns`` match of a model whose weights alone were brought; the folder, if it is another one now.

    Of the commit that is there already: the name may mean a newer one by now. Of a plain folder on a mount nothing need
    be brought: it is there as long as it is what the copy was made of.
    """
    if isinstance(found.model, Path):
        return None
    there = resolve(found.model, revision=found.revision, options=options)
    if parse_tier(there.tier) != LOCAL or there.commit is None:
        return None
    origin = find_origin(found.model, found.revision, decide_settings(options, {}))
    if origin is not None:
        return origin
    wanted = [os.path.join(found.subfolder or "", pattern) for pattern in patterns]
    return warm(f"{there.repo}@{there.commit}", include=wanted, progress=True, options=options).path


def match_files(folder: str, subfolder: str | None, patterns: Sequence[str]) -> list[Model]:
    """The files that the first of ``patterns`` to match anything matches."""
    top = Path(folder, subfolder or "")
    matches = (sorted(top.glob(pattern)) for pattern in patterns)
    return [Model(path) for path in next(filter(None, matches), [])]
