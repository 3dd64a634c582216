"""What the settings demand of a load by name: a proof, and a reader that can serve.

A load would say so before it reads a weight, so the doctor can, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._load.prove.proving import refuse_unproven
from fastload._read.gds_checks import check_file
from fastload.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._format.checkpoint import Shard
    from fastload._read.choose import Choice
    from fastload.ops.doctor.gpu import Gpu
    from fastload.options import Settings

_GDS = "gds"
_HINT = 'Use reader="auto", which takes it where it can'
_UNKNOWN = "nothing is known of the bytes"


def check_demanded(fetched: Fetched, settings: Settings) -> None:
    """Raise ``IntegrityError`` where all must be proven, and there is a shard that nothing proves."""
    shards = fetched.checkpoint.shards
    if shards and all(fetched.evidence.find(shard.path) is not None for shard in shards):
        return
    if settings.verify == "require":
        raise refuse_unproven(fetched.checkpoint, _UNKNOWN if shards else "no shard", "verify is require")
    if settings.signature_key is not None and shards:
        raise refuse_unproven(fetched.checkpoint, _UNKNOWN, "signature_key is set")


def find_reader(fetched: Fetched, settings: Settings, gpu: Gpu) -> tuple[str, str]:
    """The readers of the shards, and their reasons.

    Raises:
        UnsupportedError, UsageError: one is asked for by name, and cannot serve.
        StoreError, IntegrityError: a shard cannot be opened.
    """
    if settings.reader == _GDS:
        _check_gds(settings, gpu)
    reasons: dict[str, str] = {}
    for shard in fetched.checkpoint.shards:
        choice = fetched.choose(shard, settings.reader)
        if settings.reader == _GDS:
            _check_gds_shard(fetched, shard, choice)
            reasons[_GDS] = "asked for by name; it serves CUDA devices only"
        else:
            if settings.reader != "auto":  # which falls back by itself
                choice.open(shard).close()
            reasons.setdefault(choice.name, choice.reason)
    return "+".join(sorted(reasons)), "; ".join(dict.fromkeys(reasons.values()))


def _check_gds(settings: Settings, gpu: Gpu) -> None:
    if not gpu.devices:
        raise UnsupportedError('reader="gds" serves CUDA devices only, and there is none here', _HINT)
    if settings.gds == "off":
        raise UsageError("reader is gds, but gds is off", "Leave out one of them")
    why = gpu.gds_obstacle if gpu.kvikio is not None else "kvikio is not installed"
    if why:
        raise _refuse(why)


def _check_gds_shard(fetched: Fetched, shard: Shard, choice: Choice) -> None:
    known = fetched.evidence.find(shard.path)
    if choice.is_paced:
        raise _refuse("max_rate is kept by reads of the host")
    if known is not None and known.blocks is None:
        raise _refuse("its digest is one of the whole file, which the CPU takes")
    why = check_file(shard, allows_cached=True)
    if why:
        raise _refuse(why)


def _refuse(why: str) -> UnsupportedError:
    return UnsupportedError(f'reader="gds" cannot serve this load: {why}', _HINT)
