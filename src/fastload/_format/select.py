"""Which files of a folder are the checkpoint?

An index wins, and what it does not name is left out. Without one, files with a variant infix are left out unless that
variant is asked for: to take one that nobody chose, even the only one, would be a guess. Then ``model.safetensors`` or
``diffusion_pytorch_model.safetensors`` alone if there; else every shard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fastload._format.index import INDEX_SUFFIX, SHARD_SUFFIX
from fastload._weights import OTHER_WEIGHTS
from fastload.errors import FormatError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_STEMS = ("model", "diffusion_pytorch_model")
"""What transformers and diffusers call a checkpoint, in the order they are looked for."""

# transformers writes model-00001-of-00002.fp16 or (older, and diffusers) model.fp16-00001-of-00002.
_NUMBERED = re.compile(
    r"(?P<name>.+)-(?P<number>\d{5,6})-of-(?P<count>\d{5,6})(?:\.(?P<variant>[\w-]+))?", re.ASCII | re.DOTALL
)
_VARIANT = re.compile(r"(?=.*[A-Za-z])[\w-]+", re.ASCII)
"""Behind one of the ``_STEMS``: with a letter in it, since ``model.1`` and ``model.2`` are somebody's own numbers."""
_VARIANT_OF_ANY = re.compile(r"[A-Za-z]\w*", re.ASCII)
"""Behind any other stem: a name such as Qwen2.5-7B or v1.5 has none."""
_INDEX = re.compile(r".+\.safetensors\.index(?:\.(?P<variant>[\w-]+))?\.json", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ByIndex:
    """The shards are those that this index file names."""

    name: str


@dataclass(frozen=True, slots=True)
class ByName:
    """These shards, no index."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layered:
    """These shards, no index; of a tensor that several have, the last one's counts."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayeredByIndex(ByIndex):
    """The shards are those that this index file names, in the order of the numbers in their names.

    All of their tensors count, whatever it says of these; of one that several have, the last one's does.
    """


Selection = ByIndex | ByName | Layered


class Select(Protocol):
    """Who chooses, of the files ``names`` in a folder ``path``; raises as :func:`select_files`."""

    def __call__(self, names: Collection[str], *, path: str) -> Selection: ...


def by_rule(variant: str | None = None) -> Select:
    """The rule above."""
    return partial(select_files, variant=variant)


@dataclass(frozen=True, slots=True)
class _ShardName:
    """A shard's file name, taken apart."""

    name: str
    stem: str
    variant: str | None
    number: int
    count: int


def select_files(names: Collection[str], *, variant: str | None, path: str) -> Selection:
    """What to load of a folder ``path`` that holds the files ``names``.

    Raises:
        FormatError: no safetensors weights (says what is there instead), or a numbered set has a gap.
        UsageError: several candidates, or no such variant; names them.
    """
    names = _without_remnants(names)
    index = _find_index(names, variant, path)
    if index is not None:
        return ByIndex(index)
    shards = [_take_apart(name, variant) for name in sorted(names) if name.endswith(SHARD_SUFFIX)]
    if not shards:
        raise FormatError(path, _describe(names), "safetensors weights", hint=_no_weights_hint(names))
    wanted = [shard for shard in shards if shard.variant == variant]
    if not wanted:
        raise UsageError(_no_variant(path, variant, shards), "Choose one with variant=")
    for stem in _STEMS:
        alone = [shard for shard in wanted if shard.stem == stem and not shard.count]
        if alone:
            return ByName((alone[0].name,))
    _check_numbers(wanted, path)
    return ByName(tuple(shard.name for shard in wanted))


def list_variants(names: Iterable[str]) -> list[str | None]:
    """The variants of which a shard or an index is among the files ``names``; None stands for weights of no variant."""
    there = _without_remnants(names)
    variants = {_take_apart(name, None).variant for name in there if name.endswith(SHARD_SUFFIX)}
    variants |= {match["variant"] for match in map(_INDEX.fullmatch, there) if match}
    return sorted(variants, key=lambda variant: variant or "")


def is_remnant(name: str) -> bool:
    """True of what macOS leaves beside each file that it has copied."""
    return name.startswith("._")


def _without_remnants(names: Iterable[str]) -> list[str]:
    return [name for name in names if not is_remnant(name)]


def order_by_numbers(names: Iterable[str]) -> list[str]:
    """``names``, with ``part-9`` before ``part-10``."""
    return sorted(names, key=_by_numbers)


def _by_numbers(name: str) -> list[int | str]:
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", name))]


def check_numbers(names: Iterable[str], path: str) -> None:
    """Raise ``FormatError`` where a numbered set among the shards ``names`` has a gap."""
    _check_numbers([_take_apart(name, None) for name in names], path)


def _find_index(names: Collection[str], variant: str | None, path: str) -> str | None:
    suffix = INDEX_SUFFIX if variant is None else f"{SHARD_SUFFIX}.index.{variant}.json"
    found = sorted(name for name in names if name.endswith(suffix))
    for stem in _STEMS:
        if stem + suffix in found:
            return stem + suffix
    if len(found) > 1:
        raise UsageError(
            f"{quoted(path)} has several indexes: {', '.join(map(quoted, found))}", "Give the path of one of them"
        )
    return found[0] if found else None


def _take_apart(name: str, asked: str | None) -> _ShardName:
    base = name.removesuffix(SHARD_SUFFIX)
    match = _NUMBERED.fullmatch(base)
    if match is None:
        return _ShardName(name, *_split_variant(base, asked), 0, 0)
    number, count = int(match["number"]), int(match["count"])
    if match["variant"] is None:
        return _ShardName(name, *_split_variant(match["name"], asked), number, count)
    if _is_variant(match["name"], match["variant"], asked):
        return _ShardName(name, match["name"], match["variant"], number, count)
    return _ShardName(name, base, None, 0, 0)


def _split_variant(base: str, asked: str | None) -> tuple[str, str | None]:
    stem, _, part = base.rpartition(".")
    return (stem, part) if stem and _is_variant(stem, part, asked) else (base, None)


def _is_variant(stem: str, part: str, asked: str | None) -> bool:
    """Names outside the convention have dots of their own; what was asked for is a variant wherever it is."""
    pattern = _VARIANT if stem in _STEMS else _VARIANT_OF_ANY
    return part == asked or pattern.fullmatch(part) is not None


def _check_numbers(shards: Iterable[_ShardName], path: str) -> None:
    """Without an index, ``-of-N`` is the only word on how many shards there are."""
    present: dict[tuple[str, int], set[int]] = {}
    for shard in shards:
        if shard.count:
            present.setdefault((shard.stem, shard.count), set()).add(shard.number)
    for (stem, count), numbers in present.items():
        missing = sorted(set(range(1, count + 1)) - numbers)
        if missing:
            found = f"{len(numbers)} of {count} shards {quoted(stem + '-*')}: no {', '.join(map(str, missing[:5]))}"
            hint = "The download was not finished: fetch the model again"
            raise FormatError(path, found, f"all {count}", hint=hint)


def _describe(names: Collection[str]) -> str:
    if not names:
        return "an empty folder"
    shown = sorted(names, key=lambda name: (not name.endswith(OTHER_WEIGHTS), name))[:8]
    return f"{len(names)} entries (" + ", ".join(quoted(name) for name in shown) + (", …)" if len(names) > 8 else ")")  # noqa: PLR2004


def _no_weights_hint(names: Collection[str]) -> str:
    others = sorted({suffix for suffix in OTHER_WEIGHTS for name in names if name.endswith(suffix)})
    if others:
        return f"fastload reads safetensors only; convert the {', '.join(others)} weights or take a repo that has them"
    return "Give the folder that holds the weights; in a diffusers model that is a component: subfolder="


def _no_variant(path: str, variant: str | None, shards: Iterable[_ShardName]) -> str:
    there = ", ".join(sorted({shard.variant or "the one without a name" for shard in shards}))
    asked = f"no variant {quoted(variant)}" if variant is not None else "only weights of a variant"
    return f"{quoted(path)} has {asked}; there is: {there}"
