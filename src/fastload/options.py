"""The settings table, and the one place where they are decided.

One setting has one name in five places: the field of :class:`Options`, the key in a TOML file, ``FASTLOAD_<NAME>``,
``--<name>`` (with ``-`` for ``_``), and the key in vLLM's ``--model-loader-extra-config``. Weakest to strongest: the
default, ``/etc/fastload/config.toml``, ``~/.config/fastload/config.toml``, ``$FASTLOAD_CONFIG``, the environment,
``options=``, the keyword or flag. Aliases are in the TOML files alone; the variables of the hub's own tools
(``HF_TOKEN``, ``HF_ENDPOINT``, …) mean what they mean there.
"""

from __future__ import annotations

import difflib
import tomllib
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from fastload._read.choose import READERS
from fastload._read.file import regular_only, translate
from fastload._settings.cufile import CufileSettings, cufile_settings, find_measurements
from fastload._settings.environment import own_environment
from fastload._settings.hub import HubSettings, hub_settings
from fastload._settings.values import (
    Share,
    one_of,
    parse_aliases,
    parse_duration,
    parse_folder,
    parse_folders,
    parse_rate,
    parse_share,
    parse_size,
    parse_switch,
    parse_words,
)
from fastload._tier import TierKind
from fastload.errors import FastloadError, FormatError, StoreError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

_SYSTEM_CONFIG = "/etc/fastload/config.toml"
_USER_CONFIG = "~/.config/fastload/config.toml"
_ALIASES = "aliases"
_ENVIRONMENT = "the environment"
COMMAND_LINE = "the command line"
_TIERS = (TierKind.LOCAL, TierKind.SHARED, TierKind.HUB)
_Parsed = TypeVar("_Parsed")
_Default = TypeVar("_Default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller sets; None falls through to the weaker places."""

    local: str | None = None
    """The local tier: a folder in the layout of the hub's cache. Default: the hub's own cache."""
    shared: str | os.PathLike[str] | tuple[str, ...] | None = None
    """Mounts shared with others, searched in this order; as a str separated by colons. A PathLike is one of them."""
    tiers: str | tuple[str, ...] | None = None
    """What may be asked: some of local, shared, hub."""
    manifests: str | None = None
    """A folder for manifests of what cannot hold its own, such as a read-only mount."""
    verify: str | None = None
    """auto: by the best evidence there is; require: an error where there is none; or off."""
    signature_key: str | None = None
    """A public key in PEM: what it has not signed is not loaded, nor brought by ``warm``."""
    write_through: str | None = None
    """on, off or auto: whether what is loaded from a lower tier is kept on the local one."""
    transfer: str | None = None
    """ranged, or hub to let huggingface_hub bring the files."""
    local_max_bytes: int | str | None = None
    """How much fastload may keep on the local tier before it evicts what it brought."""
    min_free: int | str | None = None
    """What must stay free on the local tier's file system, such as ``5%`` or ``50Gi``."""
    max_rate: int | str | None = None
    """Bytes a second that are read at most: from lower tiers, and by a check from any, since nobody waits for it."""
    deadline: float | str | None = None
    """When to give up, such as ``15m``."""
    require_pinned: bool | str | None = None
    """Refuse whatever does not name a commit."""
    reader: str | None = None
    """auto, gds, direct, buffered or mmap."""
    gds: str | None = None
    """on, off or auto: GPUDirect Storage, where kvikio is installed; auto probes whether it is faster here."""
    staging_bytes: int | str | None = None
    """Host memory on the way to a device, such as ``256Mi``."""
    device_bytes: int | str | None = None
    """What a load may take of the device's memory; default: all that is free."""


def _setting(parse: Callable[[Any], _Parsed], default: _Default) -> _Parsed | _Default:
    """A field of :class:`Settings` that a caller sets: what parses it, and what it is where nobody does."""
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, decided."""

    local: str = _setting(parse_folder, "")
    """Empty: nobody named it, and there is no home where it could be by default; then ``tiers`` lacks it too."""
    shared: tuple[str, ...] = _setting(parse_folders, ())
    tiers: tuple[TierKind, ...] = _setting(parse_words("tier", *_TIERS), _TIERS)
    manifests: str | None = _setting(parse_folder, None)
    verify: str = _setting(one_of("verify", "auto", "require", "off"), "auto")
    signature_key: str | None = _setting(parse_folder, None)
    write_through: str = _setting(one_of("write_through", "on", "off", "auto"), "auto")
    transfer: str = _setting(one_of("transfer", "ranged", "hub"), "ranged")
    local_max_bytes: int | None = _setting(parse_size, None)
    min_free: Share = _setting(parse_share, Share(fraction=0.05))
    max_rate: int | None = _setting(parse_rate, None)
    deadline: float | None = _setting(parse_duration, None)
    require_pinned: bool = _setting(parse_switch, False)
    reader: str = _setting(one_of("reader", *READERS), "auto")
    gds: str = _setting(one_of("gds", "on", "off", "auto"), "auto")
    staging_bytes: int = _setting(parse_size, 256 << 20)  # 256 MiB
    device_bytes: int | None = _setting(parse_size, None)
    aliases: Mapping[str, tuple[str, ...]]
    hub: HubSettings
    cufile: CufileSettings
    measurements: str | None
    """The folder for what was measured of this machine."""
    origins: Mapping[str, str] = field(compare=False)
    """Where each setting that is no default was set."""


_PARSERS: dict[str, Callable[[Any], Any]] = {
    each.name: each.metadata["parse"] for each in fields(Settings) if each.metadata
}
_DEFAULT_ALIASES = {
    "llama-8b": (
        "meta-llama/Llama-3.1-8B-Instruct",
        "Meta-Llama-3.1-8B-Instruct",
        "Llama-3.1-8B-Instruct",
    ),
    "llama-70b": (
        "meta-llama/Llama-3.1-70B-Instruct",
        "Meta-Llama-3.1-70B-Instruct",
        "Llama-3.1-70B-Instruct",
    ),
    "llama-405b": (
        "meta-llama/Llama-3.1-405B-Instruct",
        "Meta-Llama-3.1-405B-Instruct",
        "Llama-3.1-405B-Instruct",
    ),
}


def decide_settings(
    options: Options | None, keywords: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Settings:
    """All places in order of strength; None anywhere falls through.

    Args:
        options: the caller's ``options=``.
        keywords: the caller's keywords or flags, by setting.
        environment: instead of the process's, in tests.

    Raises:
        UsageError: a value or a name that does not exist; names the place. Or ``options`` are none.
    """
    if options is not None and not isinstance(options, Options):
        raise UsageError(f"options= got {type(options).__name__}", "Give fastload.Options(reader=…)")
    variables = own_environment() if environment is None else environment
    hub = hub_settings(variables)
    decided: dict[str, Any] = {}
    aliases: dict[str, tuple[str, ...]] = dict(_DEFAULT_ALIASES)
    origins: dict[str, str] = {}
    for place, values in (
        *_config_files(variables, aliases),
        (_ENVIRONMENT, _from_environment(variables)),
        ("options=", asdict(options or Options())),
        ("the call", keywords),
    ):
        for name, value in values.items():
            if value is not None:
                decided[name] = _parse(name, value, place)
                origins[name] = place
    decided.setdefault("local", hub.cache)
    if not decided["local"]:
        decided["tiers"] = tuple(kind for kind in decided.get("tiers", _TIERS) if kind is not TierKind.LOCAL)
    return Settings(
        **decided,
        aliases=aliases,
        hub=hub,
        cufile=cufile_settings(variables),
        measurements=find_measurements(variables),
        origins=origins,
    )


def find_deadline(options: object) -> float | None:
    """The deadline of a call with these ``options``, whatever else is wrong with its settings.

    None where there is none, and where nobody can tell: what is wrong is said where all settings are decided.
    """
    stated = options.deadline if isinstance(options, Options) else None
    with suppress(FastloadError):
        return decide_settings(Options(deadline=stated), {}).deadline
    with suppress(FastloadError):
        return None if stated is None else parse_duration(stated)
    return None


def parse_options(values: Mapping[str, Any], place: str) -> Options:
    """What a mapping says, such as one that another program passes on; ``place`` is what errors call it.

    Raises:
        UsageError: a value or a name that does not exist.
    """
    for name, value in values.items():
        _parse(name, value, place)
    return Options(**values)


def _parse(name: str, value: Any, place: str) -> Any:
    if name not in _PARSERS:
        near = difflib.get_close_matches(name, _PARSERS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(_PARSERS)}"
        raise UsageError(f"no setting {name!r} (in {place})", hint)
    try:
        return _PARSERS[name](value)
    except UsageError as exc:
        raise UsageError(f"{_spell(name, place)}: {exc.what}", exc.hint) from exc


def _spell(name: str, place: str) -> str:
    """A setting's name as whoever set it wrote it there."""
    if place == COMMAND_LINE:
        return flag_of(name)
    return f"{_variable_of(name) if place == _ENVIRONMENT else name} in {place}"


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def _variable_of(name: str) -> str:
    return f"FASTLOAD_{name.upper()}"


def _from_environment(variables: Mapping[str, str]) -> dict[str, str]:
    names = {field.name: _variable_of(field.name) for field in fields(Options)}
    return {name: variables[variable] for name, variable in names.items() if variables.get(variable)}


def _config_files(
    variables: Mapping[str, str], aliases: dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The files' settings, by file; what they say of aliases is added to ``aliases``."""
    home = variables.get("HOME")
    places = [(_SYSTEM_CONFIG, False)]
    if home:
        places.append((_USER_CONFIG.replace("~", home, 1), False))
    if variables.get("FASTLOAD_CONFIG"):
        places.append((variables["FASTLOAD_CONFIG"], True))
    for path, must_exist in places:
        values = _read_toml(path, must_exist=must_exist)
        try:
            aliases |= parse_aliases(values.pop(_ALIASES, {}))
        except UsageError as exc:
            raise UsageError(f"{exc.what} (in {path})", exc.hint) from exc
        yield path, values


def _read_toml(path: str, *, must_exist: bool) -> dict[str, Any]:
    try:
        with open(path, "rb", opener=regular_only) as file:
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
    except FormatError as exc:
        raise StoreError(path, f"cannot be read: it is {exc.found}", "Put a TOML file there, or remove it") from exc
    except OSError as exc:
        raise translate(path, exc) from exc
