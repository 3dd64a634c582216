"""From the name that a host was given to the folder that it can read a config and a tokenizer from."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.api import resolve
from fastload._fetch.warm.request import WarmRequest
from fastload._fetch.warm.warm import warm
from fastload.errors import ModelNotFoundError
from fastload.integrations.interruptible import interruptible
from fastload.options import decide_settings

if TYPE_CHECKING:
    from fastload._fetch.find.resolve import Snapshot
    from fastload.options import Options, Settings

_CLOUD = ("s3://", "gs://", "az://")


def is_name(model: str | os.PathLike[str]) -> bool:
    """True for a word that neither exists as a path, which hosts take it for, nor lies in object storage."""
    return isinstance(model, str) and not os.path.exists(model) and not model.startswith(_CLOUD)


def bring(name: str, revision: str | None, options: Options | None, *, token: str | bool | None = None) -> Snapshot:
    """Where ``name`` is; what only the hub has is brought to the local tier first, by one process for all.

    ``token`` is the hub's, and means what it means to its own tools: false, and none is sent; true or None, and it is
    the one that they find.

    Raises:
        FastloadError: as :func:`fastload.warm` says; ``ModelNotFoundError`` where nobody has it.
    """
    found = None
    with suppress(ModelNotFoundError):  # its traceback would go before that of what the hub says
        found = resolve(name, revision=revision, options=options)
    if found is not None and found.complete:
        return found
    request = WarmRequest(model=name, revision=revision, progress=True)
    try:
        with interruptible():
            return warm(request, _with_token(decide_settings(options, {}), token=token))
    except ModelNotFoundError:
        if found is None:
            raise
    return found  # damaged, and nobody else has it: whoever reads it says of what


def with_local(options: Options, folder: str | None) -> Options:
    """``options`` whose local tier is ``folder``, the host's own word for one, unless they name another."""
    if folder is None or options.local is not None:
        return options
    expanded = os.path.expanduser(folder)  # a ~ that stands for nothing is refused as it is
    return replace(options, local=expanded if expanded.startswith("~") else os.path.abspath(expanded))


def _with_token(settings: Settings, *, token: str | bool | None) -> Settings:
    if token is None or token is True:
        return settings
    return replace(settings, hub=replace(settings.hub, token=token or ""))
