"""Gets an LLM's weights from wherever they are to where they compute, as fast as the hardware allows.

::

    import fastload

    weights = fastload.load("./llama-8b", device="cuda")     # dict of tensors
    print(weights.report.bottleneck)

    for name, tensor in fastload.stream("./llama-8b"): ...   # one after another; larger than memory is fine
    fastload.load_into(module, "./llama-8b")                 # into the parameters that are there
    fastload.inspect("./llama-8b").tensors                   # names, dtypes, shapes; needs no torch

Importing this is cheap: torch is imported by the first load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastload._fetch.api import resolve, warm
    from fastload._fetch.find.resolve import Snapshot
    from fastload._fetch.find.stale import StaleWarning
    from fastload._fetch.keep.facts import Listing, SnapshotFacts
    from fastload._fetch.keep.snapshots import Pin, Pruned, Removed, pin, prune, remove, snapshots, unpin
    from fastload._fetch.verify.verification import Verification
    from fastload._fetch.verify.verify import verify
    from fastload._finding import Finding
    from fastload._load.api import inspect, load, load_into, stream
    from fastload._load.inspection import Inspection
    from fastload._load.stream.stream import Stream, Weights
    from fastload._trace import Trace
    from fastload.errors import (
        AuthError,
        DeadlineError,
        FastloadError,
        FormatError,
        GroupError,
        HubError,
        IntegrityError,
        LockTimeoutError,
        MemoryBudgetError,
        ModelNotFoundError,
        NetworkError,
        NoSpaceError,
        NotWritableError,
        SignatureError,
        StoreError,
        UnsupportedError,
        UsageError,
    )
    from fastload.options import Options
    from fastload.report import Report

__version__ = "0.1.0"

_HOMES = {
    "fastload._fetch.api": ("resolve", "warm"),
    "fastload._fetch.keep.facts": ("Listing", "SnapshotFacts"),
    "fastload._fetch.find.resolve": ("Snapshot",),
    "fastload._fetch.keep.snapshots": ("Pin", "Pruned", "Removed", "pin", "prune", "remove", "snapshots", "unpin"),
    "fastload._fetch.find.stale": ("StaleWarning",),
    "fastload._fetch.verify.verification": ("Verification",),
    "fastload._fetch.verify.verify": ("verify",),
    "fastload._finding": ("Finding",),
    "fastload._load.api": ("inspect", "load", "load_into", "stream"),
    "fastload._load.inspection": ("Inspection",),
    "fastload._load.stream.stream": ("Stream", "Weights"),
    "fastload._trace": ("Trace",),
    "fastload.errors": (
        "AuthError",
        "DeadlineError",
        "FastloadError",
        "FormatError",
        "GroupError",
        "HubError",
        "IntegrityError",
        "LockTimeoutError",
        "MemoryBudgetError",
        "ModelNotFoundError",
        "NetworkError",
        "NoSpaceError",
        "NotWritableError",
        "SignatureError",
        "StoreError",
        "UnsupportedError",
        "UsageError",
    ),
    "fastload.options": ("Options",),
    "fastload.report": ("Report",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AuthError",
    "DeadlineError",
    "FastloadError",
    "Finding",
    "FormatError",
    "GroupError",
    "HubError",
    "Inspection",
    "IntegrityError",
    "Listing",
    "LockTimeoutError",
    "MemoryBudgetError",
    "ModelNotFoundError",
    "NetworkError",
    "NoSpaceError",
    "NotWritableError",
    "Options",
    "Pin",
    "Pruned",
    "Removed",
    "Report",
    "SignatureError",
    "Snapshot",
    "SnapshotFacts",
    "StaleWarning",
    "StoreError",
    "Stream",
    "Trace",
    "UnsupportedError",
    "UsageError",
    "Verification",
    "Weights",
    "inspect",
    "load",
    "load_into",
    "pin",
    "prune",
    "remove",
    "resolve",
    "snapshots",
    "stream",
    "unpin",
    "verify",
    "warm",
]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'fastload' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
