"""The settings table, and the only reader of the environment.

One setting has one name in five places: the field of :class:`Options`, the key in a TOML file, ``FASTLOAD_<NAME>``,
``--<name>`` (with ``-`` for ``_``), and the key in vLLM's ``--model-loader-extra-config``. Weakest to strongest: the
default, ``/etc/fastload/config.toml``, ``~/.config/fastload/config.toml``, ``$FASTLOAD_CONFIG``, the environment,
``options=``, the keyword or flag.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from fastload._read.choose import READERS
from fastload.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SYSTEM_CONFIG = "/etc/fastload/config.toml"
_USER_CONFIG = "~/.config/fastload/config.toml"
_UNITS = "kmgt"
_SIZE = re.compile(
    r"(?P<whole>\d{1,20})(?:\.(?P<fraction>\d{1,20}))?\s*(?:(?P<unit>[kmgt])(?P<binary>i?))?b?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller sets; None falls through to the weaker places."""

    reader: str | None = None
    """auto, direct, buffered or mmap."""
    staging_bytes: int | str | None = None
    """Host memory on the way to a device, such as ``256Mi``."""
    device_bytes: int | str | None = None
    """What a load may take of the device's memory; default: all that is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, decided."""

    reader: str
    staging_bytes: int
    device_bytes: int | None


def parse_size(value: int | str) -> int:
    """Bytes from ``1048576``, ``"500Gi"``, ``"1.5GB"``.

    Raises:
        UsageError: it is none of these.
    """
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise UsageError(f"{value!r} is no size", "Write bytes or a unit, such as 268435456 or 256Mi")
    unit, fraction = match["unit"], match["fraction"] or "0"
    power = _UNITS.index(unit.lower()) + 1 if unit else 0
    scale = int((1024 if match["binary"] else 1000) ** power)
    return int(match["whole"]) * scale + int(fraction) * scale // int(10 ** len(fraction))  # exact, unlike a float


def _parse_reader(value: Any) -> str:
    if value not in READERS:
        raise UsageError(f"no reader {value!r}", f"Use one of {', '.join(READERS)}")
    return str(value)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "reader": _parse_reader,
    "staging_bytes": parse_size,
    "device_bytes": parse_size,
}
_DEFAULTS: dict[str, Any] = {"reader": "auto", "staging_bytes": 256 << 20, "device_bytes": None}


def decide_settings(
    options: Options | None, keywords: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Settings:
    """All places in order of strength; None anywhere falls through.

    Args:
        options: the caller's ``options=``.
        keywords: the caller's keywords or flags, by setting.
        environment: instead of the process's, in tests.

    Raises:
        UsageError: a value or a name that does not exist; names the place.
    """
    variables = os.environ if environment is None else environment
    decided = dict(_DEFAULTS)
    for place, values in (
        *_config_files(variables),
        ("the environment", _from_environment(variables)),
        ("options=", asdict(options or Options())),
        ("the call", keywords),
    ):
        for name, value in values.items():
            if value is not None:
                decided[name] = _parse(name, value, place)
    return Settings(**decided)


def _parse(name: str, value: Any, place: str) -> Any:
    if name not in _PARSERS:
        near = difflib.get_close_matches(name, _PARSERS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(_PARSERS)}"
        raise UsageError(f"no setting {name!r} (in {place})", hint)
    try:
        return _PARSERS[name](value)
    except UsageError as exc:
        raise UsageError(f"{name} in {place}: {exc.what}", exc.hint) from exc


def _from_environment(variables: Mapping[str, str]) -> dict[str, str]:
    names = {field.name: f"FASTLOAD_{field.name.upper()}" for field in fields(Options)}
    return {name: variables[variable] for name, variable in names.items() if variables.get(variable)}


def _config_files(variables: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    home = variables.get("HOME")
    yield _SYSTEM_CONFIG, _read_toml(_SYSTEM_CONFIG, must_exist=False)
    if home:
        path = _USER_CONFIG.replace("~", home, 1)
        yield path, _read_toml(path, must_exist=False)
    named = variables.get("FASTLOAD_CONFIG")
    if named:
        yield named, _read_toml(named, must_exist=True)


def _read_toml(path: str, *, must_exist: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        if must_exist:
            raise UsageError(
                f"no file {path!r}, which FASTLOAD_CONFIG names", "Write it, or unset the variable"
            ) from None
        return {}
    except PermissionError as exc:
        if must_exist:
            raise StoreError(path, "cannot be read (Permission denied)", "Give this user read permission") from exc
        return {}  # another user's home, as under `sudo -u`: not ours to obey
    except (ValueError, RecursionError) as exc:  # bad TOML or UTF-8, thousands of digits or of brackets
        raise UsageError(f"{path!r} is no TOML: {exc}", "Mend the line it names") from exc
    except OSError as exc:
        raise StoreError(path, f"cannot be read ({exc.strerror})", "Check the storage") from exc
