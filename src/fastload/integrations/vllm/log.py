"""fastload's own log lines, in vLLM's log: vLLM shows no logger's but those below ``vllm``."""

from __future__ import annotations

import logging


class _Forwarding(logging.Handler):
    """Gives records to another logger, as if they had been written to it."""

    def __init__(self, to: logging.Logger) -> None:
        super().__init__()
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        if self._to.isEnabledFor(record.levelno):
            self._to.handle(record)


def forward(own: logging.Logger, to: logging.Logger) -> None:
    """Let what is written to ``own`` be shown by ``to``; nothing is changed where somebody has set ``own`` up."""
    if own.handlers or own.level != logging.NOTSET:
        return
    own.addHandler(_Forwarding(to))
    own.setLevel(to.getEffectiveLevel())
