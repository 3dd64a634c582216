"""From the name that a host was given to the folder that it can read a config and a tokenizer from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._fetch.api import resolve, warm
from fastload.errors import ModelNotFoundError

if TYPE_CHECKING:
    from fastload._fetch.resolve import Snapshot
    from fastload.options import Options

_CLOUD = ("s3://", "gs://", "az://")


def is_name(model: str | os.PathLike[str]) -> bool:
    """True for a word that neither exists as a path, which hosts take it for, nor lies in object storage."""
    return isinstance(model, str) and not os.path.exists(model) and not model.startswith(_CLOUD)


def bring(name: str, revision: str | None, options: Options | None) -> Snapshot:
    """Where ``name`` is; what only the hub has is brought to the local tier first, by one process for all.

    Raises:
        FastloadError: as :func:`fastload.warm` says; ``ModelNotFoundError`` where nobody has it.
    """
    try:
        return resolve(name, revision=revision, options=options)
    except ModelNotFoundError:
        return warm(name, revision=revision, progress=True, options=options)
