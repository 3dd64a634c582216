"""SGLang: ``python -m sglang.launch_server --model-path MODEL --load-format private``.

SGLang has no registry of load formats. Of those that it knows, ``private`` is the one that it leaves to others: it
imports ``sglang.private.private_model_loader``, which is not part of it, and takes ``PrivateModelLoader`` from there.
The plugin puts a module under that name, which imports the loader when it is asked for it.

Written by the source of SGLang 0.5.23, and tried against a stand-in for it; not run in a real SGLang yet.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_NAME = "sglang.private.private_model_loader"
_log = logging.getLogger("fastload")


def register() -> None:
    """Make ``--load-format private`` mean fastload, unless there is another loader of that name."""
    if _NAME in sys.modules or find_spec("sglang.private") is not None:
        _log.warning("another private loader is installed: --load-format private is that one, not fastload")
        return
    sys.modules[_NAME] = _Lazy(_NAME)


class _Lazy(ModuleType):
    """A module that imports its only content when somebody asks for it."""

    def __getattr__(self, name: str) -> Any:
        if name != "PrivateModelLoader":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return import_module("fastload.integrations.sglang.loader").FastloadLoader
