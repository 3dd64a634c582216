"""What a model's ``config.json`` says of its weights."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from fastload._fetch.evidence.damage import MEND_HINT, size_of
from fastload._read.file import read_small_file
from fastload._store.directory import contained, containment_root
from fastload._store.offered import read_whole
from fastload.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._fetch.checkpoint.fetched import Fetched

_MAX_CONFIG_BYTES = 16 << 20  # 16 MiB
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
    names = _list_names(subfolder)
    if fetched.home.remote is not None:
        return [file.path for file in fetched.home.remote.files if file.path in names]
    paths = (os.path.join(_top_of(fetched), name) for name in names)
    return [path for path in paths if os.path.isfile(path)]


def _list_names(subfolder: str | None) -> list[str]:
    return [_NAME] if not subfolder else [f"{subfolder.strip('/')}/{_NAME}", _NAME]


def _top_of(fetched: Fetched) -> str:
    return fetched.root if os.path.isdir(fetched.root) else fetched.folder


def _read_configs(fetched: Fetched, subfolder: str | None) -> Iterator[tuple[str, bytes]]:
    for name in _list_names(subfolder):
        if fetched.home.remote is not None:
            file = next((file for file in fetched.home.remote.files if file.path == name), None)
            _check_not_lost(fetched, name, name, is_there=file is not None)
            if file is not None:
                yield name, read_whole(fetched.home.remote, file, _MAX_CONFIG_BYTES)
            continue
        top = _top_of(fetched)
        path = os.path.join(top, name)
        _check_not_lost(fetched, name, path, is_there=os.path.isfile(path))
        if os.path.lexists(path):
            path = contained(path, containment_root(top))
            yield path, read_small_file(path, _MAX_CONFIG_BYTES, fetched.evidence.whole_prover(fetched.tally))


def _check_not_lost(fetched: Fetched, name: str, path: str, *, is_there: bool) -> None:
    """A config that is known and lost would say that nothing is quantised."""
    known = fetched.evidence.files.get(name)
    if known is not None and not is_there:
        raise IntegrityError(path, 0, "no file", size_of(known), MEND_HINT)


def _parse(raw: bytes, path: str) -> dict[str, Any]:
    """Not as strictly as a header: ``Infinity`` and ``NaN`` stand in real ones."""
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise FormatError(path, f"no JSON ({exc})", "a JSON object") from exc
    if not isinstance(config, dict):
        raise FormatError(path, "JSON that is no object", "a JSON object")
    return config
