"""What a model's ``config.json`` says of its weights."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from fastload._fetch.evidence.damage import MEND_HINT, size_of
from fastload._json_outline import has_more_values
from fastload.errors import FormatError, IntegrityError
from fastload.strict_json import check_nesting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._fetch.checkpoint.beside import Beside
    from fastload._fetch.checkpoint.fetched import Fetched

_MAX_CONFIG_BYTES = 16 << 20  # 16 MiB
_FEW_VALUES = 250_000
_VALUE_BYTES = 12
"""A label of a classifier, or a layer that is quantised in a way of its own, has more for each comma and opening
bracket: a large config may have as many as it is long. 16 MiB that hold to it take up to 140 MB."""
_NAME = "config.json"
_QUANTISED = "quantization_config"


def is_quantised(fetched: Fetched, subfolder: str | None) -> bool:
    """True if a config says that the weights are quantised: the one beside them, or that of the whole model.

    Raises:
        FormatError: a config is there but is no JSON object, or a link that leads elsewhere.
        IntegrityError: a config is known, and is lost or another one.
    """
    return any(_says_quantised(_parse(raw, path)) for path, raw in _read_configs(fetched, subfolder))


def _says_quantised(config: dict[str, Any]) -> bool:
    """True if it, or the config of a part of the model that stands in it (``text_config``), has the key.

    Whatever it says, ``{}`` too: somebody meant the weights to be read in a way of their own. ``null`` means no.
    """
    pending: list[dict[str, Any]] = [config]
    while pending:
        part = pending.pop()
        if part.get(_QUANTISED) is not None:
            return True
        pending.extend(value for value in part.values() if isinstance(value, dict))
    return False


def find_configs(fetched: Fetched, subfolder: str | None) -> list[str]:
    """The paths of the configs that are there."""
    return [config.path for config in _list_configs(fetched, subfolder) if config.is_there]


def _list_configs(fetched: Fetched, subfolder: str | None) -> Iterator[Beside]:
    """Where a config may be: the part's own, and that of the whole."""
    top = fetched.root if os.path.isdir(fetched.root) else fetched.folder
    for name in [_NAME] if not subfolder else [f"{subfolder.strip('/')}/{_NAME}", _NAME]:
        yield fetched.home.beside(top, name)


def _read_configs(fetched: Fetched, subfolder: str | None) -> Iterator[tuple[str, bytes]]:
    for config in _list_configs(fetched, subfolder):
        _check_not_lost(fetched, config)
        raw = config.read(_MAX_CONFIG_BYTES, fetched.evidence.whole_prover(fetched.tally))
        if raw is not None:
            yield config.path, raw


def _check_not_lost(fetched: Fetched, config: Beside) -> None:
    """A config that is known and lost would say that nothing is quantised."""
    known = fetched.evidence.files.get(fetched.evidence.name_of(config.path))
    if known is not None and not config.is_there:
        raise IntegrityError(config.path, 0, "no file", size_of(known), MEND_HINT)


def _parse(raw: bytes, path: str) -> dict[str, Any]:
    """Not as strictly as a header: ``Infinity`` and ``NaN`` stand in real ones. In UTF-8, as it is counted."""
    most = max(_FEW_VALUES, len(raw) // _VALUE_BYTES)
    if has_more_values(raw, most):
        raise FormatError(path, f"more than {most:,} JSON values", "hardly any that is not about the model")
    try:
        check_nesting(raw)
        config = json.loads(str(raw, "utf-8-sig"))
    except (ValueError, RecursionError) as exc:
        raise FormatError(path, f"no JSON ({exc})", "a JSON object") from exc
    if not isinstance(config, dict):
        raise FormatError(path, "JSON that is no object", "a JSON object")
    return config
