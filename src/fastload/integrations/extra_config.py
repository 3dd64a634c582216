"""``--model-loader-extra-config`` of vLLM and SGLang: fastload's settings, and keys of the host's own loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastload.errors import UsageError
from fastload.integrations.names import with_local
from fastload.options import Options, parse_options

PLACE = "--model-loader-extra-config"
NAMES = "names"
"""The key under which the front end tells the workers which name a folder was found by; set by fastload itself."""
GROUP = "group"
"""The key that lets the ranks of vLLM load each for itself."""
_OF_HOST = frozenset({"enable_weights_track"})
"""The keys of vLLM's default loader that mean something here, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraConfig:
    """What the extra config says."""

    options: Options
    names: Mapping[str, str] = field(default_factory=dict)
    """Names by folder, so that a draft model, or one that is loaded later, is not taken for another one."""
    of_host: Mapping[str, Any] = field(default_factory=dict)
    wants_group: bool = True
    """False if each rank shall load for itself."""


def parse_extra_config(config: object, download_dir: str | None) -> ExtraConfig:
    """What ``config`` says; ``--download-dir`` is the local tier, unless the config names one.

    Raises:
        UsageError: it is no table, or has a key or a value that does not exist.
    """
    if not isinstance(config, Mapping):
        raise UsageError(f"{PLACE} got {type(config).__name__}", 'Write a table, such as {"reader": "direct"}')
    odd = next((key for key in config if not isinstance(key, str)), None)  # in Python, JSON has no other keys
    if odd is not None:
        raise UsageError(f"{PLACE} has the key {odd!r}", 'Write names of settings, such as {"reader": "direct"}')
    names = _parse_names(config.get(NAMES, {}))
    wants_group = config.get(GROUP, True)
    if not isinstance(wants_group, bool):
        raise UsageError(f"{GROUP} in {PLACE} got {type(wants_group).__name__}", "Write true or false")
    of_host = {key: value for key, value in config.items() if key in _OF_HOST}
    settings = {key: value for key, value in config.items() if key not in _OF_HOST | {NAMES, GROUP}}
    options = parse_options(settings, PLACE)
    options = with_local(options, download_dir)
    return ExtraConfig(options=options, names=names, of_host=of_host, wants_group=wants_group)


def _parse_names(names: object) -> Mapping[str, str]:
    hint = "Leave it out: fastload sets it itself"
    if not isinstance(names, Mapping):
        raise UsageError(f"{NAMES} in {PLACE} got {type(names).__name__}", hint)
    for folder, name in names.items():
        if not isinstance(name, str):
            raise UsageError(f"{NAMES} in {PLACE} has {type(name).__name__} for {folder!r}", hint)
    return names
