"""Ctrl-C while a host waits for a model that only the hub has."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fastload.integrations.interruptible import interruptible
from hub_faults import Stall
from hub_server import HubServer, Repo
from stored_models import model_files

if TYPE_CHECKING:
    from pathlib import Path

_BRING = """
import asyncio
from fastload.integrations.names import bring

async def start():
    bring("org/name", None, None)

asyncio.run(start())
"""


def test_once_is_enough_in_a_coroutine(tmp_path: Path) -> None:
    """``vllm serve`` asks for a model in one."""
    environment = {"FASTLOAD_LOCAL": str(tmp_path / "local"), "FASTLOAD_TIERS": "local,hub", "HF_HUB_OFFLINE": "0"}
    with HubServer({"org/name": Repo(model_files())}) as hub:
        hub.faults.add(Stall(after_bytes=1, seconds=600.0), host="cdn", times=None)
        environment["HF_ENDPOINT"] = hub.url
        with subprocess.Popen(
            [sys.executable, "-c", _BRING], env=os.environ | environment, stderr=subprocess.PIPE, text=True
        ) as host:
            deadline_s = time.monotonic() + 60
            while not any(request.path.startswith("/cdn/") for request in hub.requests):
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
            host.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                host.wait(60)
            ended = host.poll()
            host.kill()
            said = host.communicate()[1]
    assert ended is not None
    assert said.rstrip().endswith("KeyboardInterrupt")


async def _handler_inside() -> object:
    with interruptible():
        return signal.getsignal(signal.SIGINT)


def test_asyncio_has_its_handler_back() -> None:
    async def look() -> tuple[object, object, object]:
        return signal.getsignal(signal.SIGINT), await _handler_inside(), signal.getsignal(signal.SIGINT)

    before, inside, after = asyncio.run(look())
    assert inside is signal.default_int_handler
    assert before is after is not inside


def test_a_handler_that_somebody_has_set_stays() -> None:
    def own(*_: object) -> None:
        """Nothing."""

    theirs = signal.signal(signal.SIGINT, own)
    try:
        assert asyncio.run(_handler_inside()) is own
    finally:
        signal.signal(signal.SIGINT, theirs)


def test_another_thread_than_the_main_one_is_left_alone() -> None:
    found: list[object] = []

    async def look() -> None:
        thread = threading.Thread(target=lambda: found.append(asyncio.run(_handler_inside())))
        thread.start()
        thread.join()
        found.append(signal.getsignal(signal.SIGINT))

    asyncio.run(look())
    assert found[0] is found[1]
