"""The load format ``fastload``: vLLM's default loader, with fastload's stream for its iterator over tensors.

What vLLM does around the iterator stays vLLM's: secondary sources and their prefixes, which weights are missing,
quantisation, reloads. Only what is stable from vLLM 0.27 to 0.33 is overridden: ``__init__``, ``download_model``,
``load_weights`` and ``_get_weights_iterator``; never ``load_model``, which is where versions differ.
"""

from __future__ import annotations

import copy
import logging
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.platforms import current_platform

from fastload._fetch.find.model import Source
from fastload._format.index import SHARD_SUFFIX
from fastload._load import engine
from fastload._load.group.joining import joining_group
from fastload._load.inspection import inspect_source
from fastload._load.request.request import Request, begin_deadline
from fastload.errors import UnsupportedError
from fastload.integrations.extra_config import parse_extra_config
from fastload.integrations.reload import until_dropped
from fastload.integrations.vllm.files import select_as_vllm
from fastload.integrations.vllm.group import GroupChoice, Occasion, choose_group
from fastload.integrations.vllm.names import bring_matches, find_folder, find_model, match_files
from fastload.integrations.vllm.ranks import Rank, find_rank, leave_copy, share_pages, stagger
from fastload.integrations.vllm.room import Room, fit
from fastload.integrations.vllm.telling import RankProgress, tell
from fastload.integrations.vllm.wanted import wanted_tensors
from fastload.options import decide_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._load.stream.stream import Stream
    from fastload.integrations.vllm.names import Model

    Tensors = Iterator[tuple[str, torch.Tensor]]

_log = logging.getLogger("vllm.fastload")


class FastloadLoader(DefaultModelLoader):
    """vLLM makes one for each load, reload and draft model, and one before there is a model: making it does nothing."""

    def __init__(self, load_config: Any) -> None:
        self._extra = parse_extra_config(load_config.model_loader_extra_config, load_config.download_dir)
        own = copy.copy(load_config)  # vLLM's is shared with draft models
        own.load_format = "safetensors"
        own.model_loader_extra_config = dict(self._extra.of_host)
        super().__init__(own)
        self._streams: list[Stream] = []
        self._ends: list[Callable[[], None]] = []
        self._loaded_config: Any | None = None

    def download_model(self, model_config: Any) -> None:
        """Bring the model up, so that it can be loaded at once."""
        self._find(model_config.model, model_config.revision)

    def load_weights(self, model: torch.nn.Module, model_config: Any) -> None:
        """Load into ``model``; when this returns, every byte that was handed out is proven.

        A digest of a whole file is there at the file's end, and a model may stop asking before.
        """
        with ExitStack() as closing:
            closing.callback(self._close)
            self._loaded_config = model_config
            super().load_weights(model, model_config)
            for end in self._ends:
                end()

    def _close(self) -> None:
        for opened in self._streams:
            opened.close()
        self._streams.clear()
        self._ends.clear()
        self._loaded_config = None

    def _get_weights_iterator(self, source: Any) -> Tensors:
        if self.load_config.safetensors_load_strategy == "torchao":
            raise UnsupportedError("a checkpoint serialised by torchao", "Use --load-format safetensors for it")
        # From here on counts vLLM's own line on how long it took.
        self.counter_before_loading_weights: float = self.counter_before_loading_weights or time.perf_counter()
        found = self._find(source.model_or_path, source.revision, source.subfolder)
        tensors = self._read(source, found) if source.allow_patterns_overrides is None else self._match(source, found)
        return ((source.prefix + name, tensor) for name, tensor in tensors)

    def _find(self, model: str, revision: str | None, subfolder: str | None = None) -> Model:
        return find_model(model, revision, self._extra.names, self._extra.options)._replace(subfolder=subfolder)

    def _match(self, source: Any, found: Model) -> Tensors:
        """The files that a model names itself: read here if they are safetensors, else by vLLM."""
        folder, patterns = find_folder(found, self._extra.options), source.allow_patterns_overrides
        files = match_files(folder, found.subfolder, patterns)
        if not files and os.path.isdir(source.model_or_path):  # what was brought up from there is weights we read alone
            folder = source.model_or_path
            files = match_files(folder, found.subfolder, patterns)
        if not files:
            folder = bring_matches(found, patterns, self._extra.options) or folder
            files = match_files(folder, found.subfolder, patterns)
        if files and all(str(file.model).endswith(SHARD_SUFFIX) for file in files):
            for file in files:
                yield from self._read(source, file)
            return
        _log.warning("%s in %s: read by vLLM, unverified, since it is no safetensors", patterns, folder)
        plain = copy.copy(self.load_config)
        plain.load_format = "hf"
        its_source = replace(source, model_or_path=folder, prefix="")
        yield from DefaultModelLoader(plain)._get_weights_iterator(its_source)  # noqa: SLF001 - its class is ours

    def _read(self, source: Any, found: Model) -> Tensors:
        rank = find_rank()
        choice = self._choose_group() if rank.count > 1 else GroupChoice()
        options = self._extra.options if choice.group is not None else share_pages(rank, self._extra.options)
        device, room = _target_device(), Room(decide_settings(options, {}))
        place = Source(found.model, found.subfolder, None, found.revision, select_as_vllm)
        inspection = inspect_source(place, room.settings)
        if device.type == "cuda":
            room = fit([facts.nbytes for facts in inspection.tensors.values()], room.settings)
        wanted = wanted_tensors(self, source, inspection)
        parts = [wanted] if choice.group is not None else stagger(rank, inspection, wanted)
        settings = leave_copy(parts, room.settings)
        for part in parts:
            progress = RankProgress(rank) if self.load_config.use_tqdm_on_load else False
            with joining_group(choice.group, lambda: room.settings.deadline) as pending:
                request = Request(
                    source=place,
                    tensors=part,
                    dtype=None,
                    progress=progress,
                    settings=settings,
                    deadline=begin_deadline(place, settings),
                    group=pending,
                    host_above_bytes=room.host_above_bytes,
                )
                opened = engine.stream(request, device)
            self._streams.append(opened)
            end = partial(_end, opened, rank, choice.why_alone)
            if self._loaded_config is not None:
                self._ends.append(end)
                yield from _finished(opened)
            else:
                yield from until_dropped(opened, _log)
                end()

    def _choose_group(self) -> GroupChoice:
        occasion = Occasion(
            model_config=self._loaded_config,
            local_experts=self.local_expert_ids,
            reader=decide_settings(self._extra.options, {}).reader,
            wants_group=self._extra.wants_group,
        )
        return choose_group(occasion)


def _finished(opened: Stream) -> Tensors:
    """The tensors of ``opened``, which ``load_weights`` finishes where the model stops asking."""
    for tensor in opened:  # noqa: UP028 - `yield from` would close it
        yield tensor


def _end(opened: Stream, rank: Rank, why_alone: str | None) -> None:
    """Prove what the model did not ask for, and say what was done."""
    for _ in opened:
        pass
    tell(opened.report, rank, why_alone)


def _target_device() -> torch.device:
    """Where vLLM wants the weights; elsewhere than on CUDA it moves them itself."""
    return torch.device("cuda", torch.cuda.current_device()) if current_platform.is_cuda() else torch.device("cpu")
