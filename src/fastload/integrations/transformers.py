"""transformers: ``from_pretrained`` whose weights come through fastload.

::

    from fastload.integrations.transformers import from_pretrained, patched

    model = from_pretrained(AutoModelForCausalLM, "llama-8b", dtype="auto")     # a name that fastload knows

    with patched():                                                             # code that is not yours to change
        pipe = pipeline("text-generation", "/models/llama-8b")

transformers has no registry of loaders, but opens every shard by the name ``safe_open`` in its ``modeling_utils``; that
name is another one meanwhile, for all threads. All else (classes, generation config, tied weights, ``device_map``,
quantisation) is left to transformers. On the CPU, parameters of the stored dtype are the memory that was read into.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fastload._fetch.api import resolve
from fastload._load.api import inspect, load, stream
from fastload.errors import escaped
from fastload.integrations.names import bring, is_name, with_local
from fastload.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    from fastload._fetch.find.resolve import Snapshot
    from fastload._load.stream.stream import Stream

_log = logging.getLogger("fastload")


def from_pretrained(cls: Any, model: str | os.PathLike[str], *, options: Options | None = None, **keywords: Any) -> Any:
    """``cls.from_pretrained``, by fastload's names and bytes.

    Args:
        cls: a class of transformers, such as ``LlamaForCausalLM`` or ``AutoModelForCausalLM``.
        model: a path, an alias, ``org/name[@revision]`` or a folder's name on a tier. What only the hub has is
            brought to the local tier first.
        options: settings.
        keywords: as ``cls.from_pretrained`` takes them. ``subfolder`` is a component, as in a diffusers pipeline.
            ``token`` is the hub's, for what only the hub has; with ``local_files_only`` nothing is fetched.
            ``cache_dir`` is the local tier, unless ``options`` name one.

    Raises:
        FastloadError: as :func:`fastload.load` says; when this returns, every byte in the model is proven. Not so if
            there are no safetensors, which a warning of the log says.
    """
    cache = keywords.get("cache_dir")
    options = with_local(options or Options(), None if cache is None else os.fspath(cache))
    folder: Any = model
    if isinstance(model, str) and is_name(model):
        folder = _find(model, keywords.pop("revision", None), options, keywords).path
    with _reading(_Use(os.path.abspath(folder), options)) as use:
        made = cls.from_pretrained(folder, **keywords)
    if not use.opened:
        what = "%s: no weights came through fastload, so that nothing of them is proven: are there .bin files alone?"
        _log.warning(what, escaped(os.fspath(folder)))
    return made


def _find(name: str, revision: str | None, options: Options, keywords: Mapping[str, Any]) -> Snapshot:
    if keywords.get("local_files_only"):
        return resolve(name, revision=revision, options=options)
    return bring(name, revision, options, token=keywords.get("token"))


@contextmanager
def patched(*, options: Options | None = None) -> Iterator[None]:
    """Inside of it, transformers reads safetensors through fastload, in every thread of the process.

    Of several that overlap, a file goes by the options of the one that began last.
    """
    with _reading(_Use("/", options)):
        yield


@dataclass(eq=False, slots=True)
class _Use:
    """Somebody for whom transformers reads through fastload now."""

    folder: str
    """What lies below it."""
    options: Options | None
    opened: int = 0
    """Files."""


class _Patch:
    """The name ``safe_open`` in transformers, which is ours from the first use to the end of the last one.

    Whoever put back what was there when it began would end the reading of others, who began before or after.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses: list[_Use] = []
        self._own: Callable[..., Any] | None = None

    def begin(self, use: _Use) -> None:
        """Put ours there, if it is not."""
        from transformers import modeling_utils  # noqa: PLC0415 - this module is imported without it

        with self._lock:
            if not self._uses:
                self._own = modeling_utils.safe_open
                modeling_utils.safe_open = self.safe_open
            self._uses.append(use)

    def end(self, use: _Use) -> None:
        """Put theirs back, if nobody else needs ours."""
        from transformers import modeling_utils  # noqa: PLC0415 - as above

        with self._lock:
            self._uses.remove(use)
            if not self._uses:
                modeling_utils.safe_open, self._own = self._own, None

    def safe_open(self, filename: Any, framework: str = "pt", device: str = "cpu", **keywords: Any) -> Any:
        """As ``safetensors.safe_open``, by the options of whoever wants what lies there."""
        with self._lock:
            own, use = self._own, self._find(os.path.abspath(filename))
            if own is not None and use is not None and framework == "pt" and str(device) == "cpu":
                use.opened += 1
                return Shard(str(filename), use.options)
        return (own or safetensors_open())(filename, framework=framework, device=device, **keywords)

    def _find(self, path: str) -> _Use | None:
        """The one with the nearest folder, and of several the last."""
        fitting = [use for use in self._uses if os.path.commonpath((use.folder, path)) == use.folder]
        return max(reversed(fitting), key=lambda use: len(use.folder), default=None)


def safetensors_open() -> Callable[..., Any]:
    """The original."""
    from safetensors import safe_open  # noqa: PLC0415 - transformers brings it

    return safe_open


_PATCH = _Patch()


@contextmanager
def _reading(use: _Use) -> Iterator[_Use]:
    _PATCH.begin(use)
    try:
        yield use
    finally:
        _PATCH.end(use)


class Shard:
    """One file as ``safetensors.safe_open`` would give it: reading begins with the first tensor that is asked for.

    transformers asks by several threads and nearly in the order of the file, so tensors that come before they are
    asked for wait here.
    """

    def __init__(self, path: str, options: Options | None) -> None:
        self._path = path
        self._options = options
        self._inspection = inspect(path, options=options)
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._arrived: dict[str, torch.Tensor] = {}
        self._given: set[str] = set()

    def keys(self) -> list[str]:
        """The names of its tensors."""
        return list(self._inspection.tensors)

    def metadata(self) -> dict[str, str]:
        """What the header says besides."""
        return dict(self._inspection.metadata)

    def get_slice(self, name: str) -> Slice:
        """The tensor ``name``, not read yet."""
        facts = self._inspection.tensors[name]
        return Slice(self, name, facts.dtype, list(facts.shape))

    def get_tensor(self, name: str) -> torch.Tensor:
        """The tensor ``name``."""
        if name not in self._inspection.tensors:
            raise KeyError(name)
        with self._lock:
            if name in self._given:  # it went by, and is not kept
                return load(self._path, tensors=lambda other: other == name, options=self._options)[name]
            if self._stream is None:
                self._stream = stream(self._path, progress=False, options=self._options)
            while name not in self._arrived:
                came, tensor = next(self._stream)
                self._arrived[came] = tensor
            self._given.add(name)
            return self._arrived.pop(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the proof of what was read; a digest of a whole file is there at its end."""
        with self._lock:
            self._arrived.clear()
            if self._stream is None:
                return
            with self._stream:
                if kind is None:
                    for _ in self._stream:
                        pass


@dataclass(frozen=True, slots=True)
class Slice:
    """A tensor that is read when it is indexed."""

    shard: Shard
    name: str
    dtype: str
    shape: list[int]

    def get_dtype(self) -> str:
        """The spelling of the file, such as ``BF16``."""
        return self.dtype

    def get_shape(self) -> list[int]:
        """Its dimensions."""
        return self.shape

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.shard.get_tensor(self.name)[index]
