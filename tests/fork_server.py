"""The process behind :mod:`forked`: it imports once, and forks for every process that is asked for.

It takes ``{"start": …}``, with the descriptors to be stdout and stderr, and ``{"wait": pid}`` from the socket whose
number is its first argument, and answers each with a number. The other arguments are the modules to import.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from typing import Any

_MOST_BYTES = 1 << 20


def main(channel: socket.socket, modules: list[str]) -> None:
    """Serve until nobody is left to ask; a child returns when its work is done, so that Python ends it as any other."""
    for name in modules:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]  # it reads the environment when it is imported; what it imports need not be read again
    gc.collect()
    gc.freeze()
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    if start := _serve(channel):
        signal.signal(signal.SIGINT, on_interrupt)
        _work(**start)


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """What a child shall do; None in the server itself, at the end."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _MOST_BYTES, 2)
        if not message:
            return None
        asked = json.loads(message)
        if "wait" in asked:
            channel.send(b"%d" % os.waitpid(asked["wait"], 0)[1])
            continue
        pid = os.fork()
        if not pid:
            channel.close()
            for number, descriptor in zip((1, 2), descriptors, strict=True):
                os.dup2(descriptor, number)
        for descriptor in descriptors:
            os.close(descriptor)
        if not pid:
            start: dict[str, Any] = asked["start"]
            return start
        channel.send(b"%d" % pid)


def _work(words: list[str], environ: dict[str, str], folder: str) -> None:
    """As ``python -m …`` or ``python -c …`` would."""
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    kind, what, *arguments = words
    if kind == "-m":
        sys.path[0] = folder
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = ""
        sys.argv = ["-c", *arguments]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102 - a test's


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as asked_through:
        main(asked_through, sys.argv[2:])
