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

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fastload._load.api import inspect, load, stream
from fastload.integrations.names import bring, is_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from fastload._load.stream import Stream
    from fastload.options import Options


def from_pretrained(cls: Any, model: str, *, options: Options | None = None, **keywords: Any) -> Any:
    """``cls.from_pretrained``, by fastload's names and bytes.

    Args:
        cls: a class of transformers, such as ``LlamaForCausalLM`` or ``AutoModelForCausalLM``.
        model: a path, an alias, ``org/name[@revision]`` or a folder's name on a tier. What only the hub has is
            brought to the local tier first.
        options: settings.
        keywords: as ``cls.from_pretrained`` takes them. ``subfolder`` is a component, as in a diffusers pipeline.

    Raises:
        FastloadError: as :func:`fastload.load` says; when this returns, every byte in the model is proven.
    """
    folder = model
    if is_name(model):
        folder = bring(model, keywords.pop("revision", None), options).path
    with patched(options=options):
        return cls.from_pretrained(folder, **keywords)


@contextmanager
def patched(*, options: Options | None = None) -> Iterator[None]:
    """Inside of it, transformers reads safetensors through fastload, in every thread of the process."""
    from transformers import modeling_utils  # noqa: PLC0415 - this module is imported without it

    own = modeling_utils.safe_open

    def safe_open(filename: Any, framework: str = "pt", device: str = "cpu", **keywords: Any) -> Any:
        if framework != "pt" or str(device) != "cpu":
            return own(filename, framework=framework, device=device, **keywords)
        return Shard(str(filename), options)

    modeling_utils.safe_open = safe_open
    try:
        yield
    finally:
        modeling_utils.safe_open = own


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
