"""Which files of a snapshot are brought up: weights as safetensors, configs, tokenizer."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastload._format.index import INDEX_SUFFIX, SHARD_SUFFIX
from fastload._verify.path import is_index
from fastload._weights import OTHER_WEIGHTS
from fastload.errors import FormatError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fastload._store.offer import OfferedFile

WARM_PATTERNS = (
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*tokenizer.model.*",
    "*.jinja",
    "*.py",
    "*.tiktoken",
    "*.spm",
    "*.bpe",
    "*.codes",
    "*.vocab",
    "*.yaml",
    "*.yml",
    "*.md",
    "LICENSE*",
    "NOTICE*",
    "model.sig",
    "mask_embedding.pt",
    "colbert_linear.pt",
    "sparse_linear.pt",
)
"""What ``warm`` takes, as globs of the whole path: the hub's ``allow_patterns``, with these ``ignore_patterns``:"""
WARM_IGNORES = ("original/*", "*/original/*", "*.bin.index.json", "._*", "*/._*")
_TORCHS_WEIGHTS = ("*.bin", "*.pt", "*.pth")
_LISTS_OF_COMPONENTS = ("modules.json", "model_index.json")
"""Of sentence-transformers, and of diffusers, at the top of a model."""
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """``include`` adds to what is taken by default, ``exclude`` takes away from both."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def choose(self, files: Iterable[OfferedFile]) -> tuple[OfferedFile, ...]:
        """The wanted ones of ``files``."""
        offered = list(files)
        paths = {file.path for file in offered}
        indexed, torchs = _folders_with(paths, INDEX_SUFFIX), _find_torchs_components(paths)
        return tuple(file for file in offered if self._wants(file.path, indexed, torchs))

    def chooses_beyond(self, paths: Iterable[str], named: Iterable[OfferedFile]) -> bool:
        """True if of ``named``, all the files of a commit, it chooses one that is not among ``paths``."""
        there = set(paths)
        return any(file.path not in there for file in self.choose(named))

    def is_met_by(self, earlier: Wish, paths: Iterable[str]) -> bool:
        """True if what ``earlier`` chose, ``paths``, has all that this one would choose of the same files."""
        there = set(paths)
        unknown = [glob for glob in self.include if not any(_covers(wide, glob) for wide in earlier.include)]
        return set(unknown) <= there and set(earlier.exclude) <= set(self.exclude)

    def joined(self, other: Wish) -> Wish | None:
        """The wish for what either chooses; None where they leave out other files, which no globs can say."""
        if set(self.exclude) != set(other.exclude):
            return None
        return Wish(tuple(dict.fromkeys((*other.include, *self.include))), self.exclude)

    def may_leave_out(self, name: str) -> bool:
        """True if a file that is called as ``name`` may be excluded; a ``*`` in it is text with no ``/``.

        Nor has it a dot with a letter behind it, as in the names of variants: ``Qwen2.5-7B`` is none.
        """
        return any(_may_match(glob, name) for glob in self.exclude)

    def _wants(self, path: str, indexed: set[str], torchs: set[str]) -> bool:
        if matches(path, self.exclude):
            return False
        if matches(path, self.include):
            return True
        folder, name = posixpath.split(path)
        is_second_copy = folder in indexed and name.startswith("consolidated") and name.endswith(SHARD_SUFFIX)
        is_component = folder in torchs and matches(name, _TORCHS_WEIGHTS)
        is_taken = is_component or (matches(path, WARM_PATTERNS) and not is_second_copy)
        return is_taken and not matches(path, WARM_IGNORES)


def parse_wish(include: str | Sequence[str], exclude: str | Sequence[str]) -> Wish:
    """The wish that a caller's globs mean.

    Raises:
        UsageError: one of them is none.
    """
    return Wish(parse_globs("include", include), parse_globs("exclude", exclude))


def parse_globs(name: str, globs: str | Sequence[str]) -> tuple[str, ...]:
    """One glob or several, as the argument ``name`` takes them.

    Raises:
        UsageError: one of them is empty or no str.
    """
    given: Any = globs
    listed = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not all(isinstance(glob, str) and glob for glob in listed):
        raise UsageError(f"{name}={globs!r}", "Give globs, such as '*.gguf'")
    return listed


def _find_torchs_components(paths: set[str]) -> set[str]:
    """The folders of components whose only weights are torch's, in a model whose others are safetensors.

    Hosts read them past the loader, and where they are not there, some go on without: a sentence-transformers model
    then has other dimensions. Elsewhere torch's files are a second copy, or the state of a training.
    """
    with_safetensors = _folders_with(paths, SHARD_SUFFIX)
    if not with_safetensors or paths.isdisjoint(_LISTS_OF_COMPONENTS):
        return set()
    return _folders_with(paths, "/config.json") - with_safetensors


def _folders_with(paths: Iterable[str], suffix: str) -> set[str]:
    return {posixpath.dirname(path) for path in paths if path.endswith(suffix)}


def matches(path: str, globs: Iterable[str]) -> bool:
    """True if one of ``globs`` matches the whole of ``path``."""
    return any(fnmatch.fnmatchcase(path, glob) for glob in globs)


def _covers(wide: str, narrow: str) -> bool:
    """True if it is plain that all that the glob ``narrow`` matches, ``wide`` matches too.

    With no wildcard in it but ``*``, ``wide`` matches the text of ``narrow`` only where that one's ``*`` and ``?`` fall
    to a ``*`` of its own, and so would whatever they stand for. A set in brackets could be torn apart.
    """
    is_readable = not any(mark in wide for mark in "?[") and "[" not in narrow
    return wide == narrow or (is_readable and matches(narrow, (wide,)))


def _may_match(glob: str, name: str) -> bool:
    """True if ``glob`` may match something that ``name``, with a ``*`` for what nobody knows, stands for.

    It goes through ``glob`` with all the places that ``name`` may have come to.
    """
    if "[" in glob:
        return True
    places = _past_stars(name, {0})
    for number, mark in enumerate(glob):
        if mark == "*" and places:
            places = set(range(min(places), len(name) + 1))
        else:
            begins_variant = mark == "." and glob[number + 1 : number + 2].isalpha()
            here = [place for place in places if place < len(name)]
            stays = {place for place in here if name[place] == "*" and mark != "/" and not begins_variant}
            steps = {place + 1 for place in here if name[place] != "*" and mark in ("?", name[place])}
            places = _past_stars(name, stays | steps)
    return len(name) in places


def _past_stars(name: str, places: set[int]) -> set[int]:
    """``places``, and those behind each ``*``, which may stand for nothing."""
    for place, mark in enumerate(name):
        if mark == "*" and place in places:
            places = places | {place + 1}
    return places


def check_has_weights(wish: Wish, offered: Iterable[OfferedFile], place: str) -> None:
    """Raise ``FormatError`` where ``wish`` chooses no weight of what is ``offered``; it lists what is there instead."""
    files = list(offered)
    if any(is_weight(file.path) for file in wish.choose(files)):
        return
    there = [file.path for file in files if is_weight(file.path)]
    if not there:
        found = f"no weights, but {_show([file.path for file in files]) or 'no files'}"
        raise FormatError(place, found, "safetensors weights", hint="Check the name of the model")
    left = [path for path in there if not matches(path, wish.exclude)]
    if left:
        hint = f"Take what you need of them: {_include(left)}"
        raise FormatError(
            place, f"weights that are left out by default: {_show(left)}", "safetensors weights", hint=hint
        )
    globs = ", ".join(quoted(glob) for glob in wish.exclude if any(matches(path, (glob,)) for path in there))
    found = f"only weights that exclude ({globs}) leaves out: {_show(there)}"
    raise FormatError(place, found, "safetensors weights", hint=f"Leave out less: check --exclude ({globs})")


def _include(weights: Sequence[str]) -> str:
    """The arguments that bring ``weights``: one for each format."""
    kinds = (SHARD_SUFFIX, *OTHER_WEIGHTS)
    return " ".join(f"--include '*{kind}'" for kind in kinds if any(path.endswith(kind) for path in weights))


def _show(paths: Sequence[str]) -> str:
    return ", ".join(map(quoted, paths[:_SHOWN])) + (", …" if len(paths) > _SHOWN else "")


def is_weight(path: str) -> bool:
    """True if ``path`` is called as weights are, in whatever format."""
    return path.endswith((SHARD_SUFFIX, *OTHER_WEIGHTS))


def weights_of(files: Collection[OfferedFile]) -> list[OfferedFile]:
    """The ones that count: safetensors, which loads read; without any, other weights; without these, all there is."""
    safetensors = [file for file in files if file.path.endswith(SHARD_SUFFIX)]
    return safetensors or [file for file in files if is_weight(file.path)] or list(files)


def deciding_of(files: Collection[OfferedFile]) -> list[OfferedFile]:
    """The weights, and the indexes: what these do not name is not loaded."""
    return [*weights_of(files), *(file for file in files if is_index(file.path))]
