"""vLLM: ``vllm serve NAME --load-format fastload``.

::

    register()          every process of vLLM calls it, by the entry point vllm.general_plugins
      ├─ loader         where vLLM loads models: the load format, as a subclass of its default loader
      └─ engine_args    where vLLM parses its arguments: names that fastload knows become folders

A module of vLLM is imported by the processes that need it, and only then is anything done here: the front end does not
load models, and importing what does takes it seconds. See docs/vllm.md.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from fastload.integrations.once_imported import once_imported

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

LOAD_FORMAT = "fastload"
"""What ``--load-format`` takes; vLLM lower-cases it."""

_log = logging.getLogger("vllm.fastload")


def register() -> None:
    """Make vLLM know fastload. Never raises: an error here would end vLLM for every other load format, too."""
    _guarded(_hook)


def _hook() -> None:
    once_imported("vllm.model_executor.model_loader", lambda module: _guarded(lambda: _add_loader(module)))
    once_imported("vllm.engine.arg_utils", lambda module: _guarded(lambda: _wrap_names(module)))


def _add_loader(module: ModuleType) -> None:
    _show_log()
    loader = import_module("fastload.integrations.vllm.loader")
    module.register_model_loader(LOAD_FORMAT)(loader.FastloadLoader)


def _wrap_names(module: ModuleType) -> None:
    _show_log()
    import_module("fastload.integrations.vllm.engine_args").wrap(module)


def _show_log() -> None:
    """Now that vLLM is imported, which sets up its own log."""
    import_module("fastload.integrations.vllm.log").forward(logging.getLogger("fastload"), _log)


def _guarded(act: Callable[[], None]) -> None:
    try:
        act()
    except Exception:  # noqa: BLE001 - the edge to another program, which must go on
        _log.exception("fastload's plugin could not be set up; other load formats are not affected")
