"""Other loaders, each as its documentation and its users call it; at its best, since the fastest is the one to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from fastload.ops.bench.contestants import Load, Tensors
    from fastload.ops.bench.files import Files


def get_safetensors_ready(backend: str, device: str) -> Load:
    """``load_file`` for every shard: tensors over a mapping of the file, or read with ``pread``."""
    from safetensors.torch import load_file

    def load(files: Files) -> Tensors:
        tensors: dict[str, torch.Tensor] = {}
        for path in files.paths:
            tensors |= load_file(path, device=device, backend=backend)
        return tensors

    return load


def has_prefetch() -> bool:
    """True of safetensors from 0.9 on."""
    from safetensors import safe_open

    return hasattr(safe_open, "prefetch")


def get_prefetch_ready(device: str) -> Load:
    """``safe_open(…).prefetch()`` for every shard; all are under way before the first tensor is taken."""
    from safetensors import safe_open

    def load(files: Files) -> Tensors:
        tensors: dict[str, torch.Tensor] = {}
        opened: list[Any] = [safe_open(path, framework="pt", device=device) for path in files.paths]
        for loader in [file.prefetch() for file in opened]:
            tensors |= dict(loader)
        return tensors

    return load


def get_runai_ready(device: str) -> Load:
    """``SafetensorsStreamer`` with all shards. 0.17 hands its tensors over; a copy of them would only cost time."""
    from runai_model_streamer import SafetensorsStreamer

    def load(files: Files) -> Tensors:
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(list(files.paths), device=device)
            return dict(streamer.get_tensors())

    return load


def get_fastsafetensors_ready(device: str) -> Load:
    """``fastsafe_open`` without GDS, which its users must set up first. What it hands out keeps its buffer."""
    from fastsafetensors import fastsafe_open

    def load(files: Files) -> Tensors:
        with fastsafe_open(list(files.paths), device=device, nogds=True) as file:
            return {name: file.get_tensor(name) for name in list(file.keys())}

    return load


def get_instanttensor_ready(device: str) -> Load:
    """``safe_open`` with all shards; it copies each tensor out of its ring."""
    from instanttensor import safe_open

    def load(files: Files) -> Tensors:
        with safe_open(list(files.paths), framework="pt", device=device) as file:
            return dict(file.tensors())

    return load
