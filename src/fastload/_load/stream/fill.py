"""A stream that is taken into a module's own parameters and buffers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from fastload._place.cuda_memory import room_on
from fastload.errors import FastloadError, UsageError, quoted

if TYPE_CHECKING:
    from fastload._load.stream.stream import Stream
    from fastload._load.target.parameters import Destinations
    from fastload.report import Report

_UNDEFINED = "The module's content is undefined now: load into it again, or discard it"


def fill(stream: Stream, destinations: Destinations) -> Report:
    """Bring all of ``stream`` into place.

    Raises:
        FastloadError: as the stream says; the module's content is undefined then.
        UsageError: the checkpoint holds two different tensors for parameters that are tied.
    """
    try:
        with stream, stream._taking_all(), torch.no_grad():  # noqa: SLF001 - no part of what users call
            for name, tensor in stream:
                own = destinations.tensors[name]
                # A copy to the host that casts does so on the device.
                with room_on(own.device if own.is_cuda else tensor.device, own.nbytes):
                    _put(name, tensor, destinations)
    except FastloadError as exc:
        exc.add_hint(_UNDEFINED)
        raise
    except BaseException as exc:
        exc.add_note(_UNDEFINED)
        raise
    return stream.report


def _put(name: str, tensor: torch.Tensor, destinations: Destinations) -> None:
    own = destinations.tensors[name]
    if name in destinations.twins:
        if not _same_bytes(own, tensor.to(own.device, own.dtype)):
            what = f"parameter {quoted(name)} is tied to another one, but their stored tensors differ"
            hint = "Untie them (tie_word_embeddings), or load the checkpoint that belongs to the module"
            raise UsageError(what, hint)
    elif name not in destinations.straight:
        with torch.inference_mode() if own.is_inference() else nullcontext():
            own.copy_(tensor)
    if not own.is_inference():
        torch.autograd.graph.increment_version(own)  # so that backward notices, as it does for any in-place write


def _same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """NaNs included, which are unequal to themselves."""
    return torch.equal(a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8))
