"""One load whose tensors are compared: runs in a process of its own, with faults put between it and the system."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING

from safetensors.torch import load as parse_shard

import fastload
from arena import REPO, model_files
from fastload.errors import FastloadError

if TYPE_CHECKING:
    from torch import Tensor

INTERRUPTED = 130
WRONG = 96
"""The exit code of a load that ended well, with other tensors than were written."""


def _parse_all(files: dict[str, bytes]) -> dict[str, Tensor]:
    shards = (parse_shard(content) for path, content in files.items() if path.endswith(".safetensors"))
    return {name: tensor for shard in shards for name, tensor in shard.items()}


def _content(tensor: Tensor) -> bytes:
    return bytes(tensor.numpy())  # by no thread of torch's, for want of which the process ends


_written = {name: _content(tensor) for name, tensor in _parse_all(model_files()).items()}
codecs.lookup("utf-16-be")  # which is a module of its own


def run(reader: str) -> int:
    """Load by ``reader``; the exit code is that of the command line."""
    try:
        tensors = fastload.load(REPO, reader=reader, verify="require")
    except FastloadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - for the sweep
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0 if {name: _content(tensor) for name, tensor in tensors.items()} == _written else WRONG
