"""Who takes part. Each is got ready outside the clock (imports) and then loads files inside it.

All of them give the tensors to keep: what they return is not overwritten later and needs no copying. A contestant's
name is its family and a variant: ``fastload-auto``, ``safetensors-pread``.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastload._read.head import read_header
from fastload.ops.bench import peers
from fastload.ops.bench.bounds import get_loop_ready, get_memcpy_ready, get_reading_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from fastload.ops.bench.files import Files, Trial

    Tensors = Mapping[str, torch.Tensor]
    Load = Callable[[Files], Tensors]

READINGS = ("read-direct", "read-direct-1", "read-buffered", "read-buffered-1")
"""Storage alone, as fio would measure it: by eight threads, or by one."""
FASTLOAD = ("fastload-auto", "fastload-direct", "fastload-buffered", "fastload-mmap", "fastload-gds")
UNPROVEN = ("fastload-auto-off",)
PEERS = ("safetensors", "safetensors-pread", "safetensors-prefetch", "runai", "fastsafetensors", "instanttensor")
CEILING = "memcpy"
LOOP = "loop"
CACHED_BOUNDS = (CEILING, LOOP)
"""Those that are about the page cache."""
BOUNDS = (*CACHED_BOUNDS, *READINGS)
"""No loaders, but what one of them cannot be faster than."""
MAPPING = ("fastload-mmap", "fastload-mmap-off", "safetensors")
"""Those whose tensors in host memory are the page cache's own pages."""
_MODULES = {"runai": "runai_model_streamer", "fastload": "kvikio"}
"""By family: what it needs, where that is called otherwise; of fastload, for the way past the host."""
_CUDA_ONLY = ("fastload-gds", "safetensors-prefetch", "instanttensor")
_HOST_ONLY = (CEILING, "fastload-mmap")


def find_obstacle(contestant: str, device: str) -> str | None:
    """Why ``contestant`` cannot take part here; None if it can."""
    if device == "cpu" and contestant in _CUDA_ONLY:
        return "it serves CUDA devices only"
    if device != "cpu" and contestant in _HOST_ONLY:
        return "it serves host memory only"
    return _find_missing(contestant) if contestant in (*PEERS, "fastload-gds") else None


def _find_missing(peer: str) -> str | None:
    family = peer.partition("-")[0]
    module = _MODULES.get(family, family)
    if find_spec(module) is None:
        return f"{module} is not installed"
    if peer == "safetensors-prefetch" and not peers.has_prefetch():
        return "safetensors has no prefetch before 0.9"
    return None


def get_ready(contestant: str, trial: Trial) -> Load:
    """The load function of ``contestant``, imported and, for bounds, with its source in place."""
    family, _, variant = contestant.partition("-")
    device = trial.device
    loaders: dict[str, Callable[[], Load]] = {
        "read": partial(get_reading_ready, variant, trial.max_rate),
        "loop": get_loop_ready,
        "memcpy": partial(get_memcpy_ready, trial.files),
        "fastload": partial(_get_fastload_ready, variant, trial),
        "safetensors": partial(peers.get_safetensors_ready, variant or "mmap", device),
        "runai": partial(peers.get_runai_ready, device),
        "fastsafetensors": partial(peers.get_fastsafetensors_ready, device),
        "instanttensor": partial(peers.get_instanttensor_ready, device),
    }
    if contestant == "safetensors-prefetch":
        return peers.get_prefetch_ready(device)
    return loaders[family]()


def _get_fastload_ready(variant: str, trial: Trial) -> Load:
    import fastload
    from fastload._load import engine  # noqa: F401 - before the clock

    reader, _, verify = variant.partition("-")
    options = fastload.Options(**trial.options)
    load = partial(fastload.load, device=trial.device, reader=reader, verify=verify or None, options=options)

    def load_files(files: Files) -> Tensors:
        if not files.is_part:
            return load(files.folder)
        names = {info.name for path in files.paths for info in read_header(path)[0].tensors}
        return load(files.folder, tensors=names.__contains__)

    return load_files
