"""SGLang's default loader, with fastload's stream for its iterator over the tensors of safetensors files.

Which files of a model those are is left to SGLang, as is all that it does with their tensors. Not run in a real SGLang
yet.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.model_loader import loader as sglang_loader

from fastload._format.index import INDEX_SUFFIX
from fastload._load.api import stream
from fastload.integrations.extra_config import parse_extra_config
from fastload.integrations.names import bring, is_name
from fastload.integrations.reload import until_dropped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload._load.stream.stream import Stream

    Tensors = Iterator[tuple[str, torch.Tensor]]

_INDEX = f"model{INDEX_SUFFIX}"
_log = logging.getLogger("fastload")


class FastloadLoader(sglang_loader.DefaultModelLoader):
    """What ``--load-format private`` gives."""

    def __init__(self, load_config: Any) -> None:
        self._extra = parse_extra_config(load_config.model_loader_extra_config or {}, load_config.download_dir)
        own = copy.copy(load_config)
        own.load_format = sglang_loader.LoadFormat.SAFETENSORS
        own.model_loader_extra_config = {}
        super().__init__(own)
        self._streams: list[Stream] = []
        self._is_loading = False

    def load_model(self, *, model_config: Any, device_config: Any) -> Any:
        """Load; when this returns, every byte that was handed out is proven."""
        self._is_loading = True
        try:
            model = super().load_model(model_config=model_config, device_config=device_config)
            for opened in self._streams:
                for _ in opened:
                    pass
        finally:
            for opened in self._streams:
                opened.close()
            self._streams.clear()
            self._is_loading = False
        return model

    def _prepare_weights(
        self, model_name_or_path: str, revision: str | None, *arguments: Any, **keywords: Any
    ) -> tuple[str, list[str], bool]:
        """What SGLang finds in a folder, which for a name is the one where fastload finds it."""
        if is_name(model_name_or_path):
            model_name_or_path = bring(model_name_or_path, revision, self._extra.options).path
        found: tuple[str, list[str], bool] = super()._prepare_weights(
            model_name_or_path, revision, *arguments, **keywords
        )
        return found

    def _get_weights_iterator(self, source: Any, *, resolved_source: Any = None, **_: Any) -> Tensors:
        if resolved_source is None:
            folder, files, are_safetensors = self._prepare_weights(
                source.model_or_path, source.revision, source.fall_back_to_pt, source.allow_patterns_overrides
            )
            if are_safetensors and source.model_config is not None:
                config = source.model_config.hf_config
                files = sglang_loader.maybe_add_mtp_safetensors(files, folder, _INDEX, config)
        else:
            files = list(resolved_source.weight_files)
        draft = self.load_config.draft_model_idx
        if draft is not None:
            filtered: Tensors = self._filter_mtp_weights(self._read(files), source.prefix, draft)
            return filtered
        return ((source.prefix + name, tensor) for name, tensor in self._read(files))

    def _read(self, files: Sequence[str]) -> Tensors:
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
        for file in files:
            opened = stream(Path(file), device=device, progress=False, options=self._extra.options)
            if not self._is_loading:  # an update of weights asks for the iterator itself
                yield from until_dropped(opened, _log)
                continue
            self._streams.append(opened)
            for tensor in opened:  # noqa: UP028 - `yield from` would close it where the model stops asking
                yield tensor
