"""What a training run leaves beside the weights: called as weights are, and taken for weights by no loader.

Unless an index names it as a shard: transformers loads what an index of whatever format names.
"""

from __future__ import annotations

import re

_STATE = frozenset({"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"})
"""What vLLM and SGLang leave out of ``*.bin`` and ``*.pt`` (``filter_files_not_needed_for_inference`` in
``model_loader/weight_utils.py``), as ``transformers/trainer.py`` names it."""
_RNG_STATE = re.compile(r"rng_state(?:_[0-9]+)?\.pth")
"""The same, of each rank; what ends in ``.pth`` neither takes for weights."""


def is_training_state(path: str) -> bool:
    """True if it is called so, in whatever folder."""
    name = path.rpartition("/")[2]
    return name in _STATE or _RNG_STATE.fullmatch(name) is not None


def may_name(index: bytes, path: str) -> bool:
    """True if an ``index`` may name the file at ``path`` as a shard: by its name at the end of a text, or by escapes.

    Not parsed: what refuses too much here costs nothing, since real indexes have neither.
    """
    name = path.rpartition("/")[2]
    return f'{name}"'.encode() in index or b"\\" in index
