"""Engines of a real vLLM on the CPU, in this process; and what it needs to be told before it is imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of a rank each: else two on one NUMA node are refused. Tests that run beside these begin with the other one.
_CPUS = "1|0" if os.environ.get("PYTEST_XDIST_WORKER") == "gw1" else "0|1"
_HUB_CACHE = tempfile.mkdtemp(prefix="hub-cache-")
atexit.register(shutil.rmtree, _HUB_CACHE, ignore_errors=True)
os.environ.update(
    HF_HUB_CACHE=_HUB_CACHE,  # read once, too
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND=_CPUS,
    VLLM_NO_USAGE_STATS="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",  # the engine in this process: 2 s each, instead of 20
    VLLM_ALLOW_INSECURE_SERIALIZATION="1",  # tests send functions to workers
    HF_HUB_OFFLINE="1",  # huggingface_hub reads it once, when it is imported
    HF_ENDPOINT="http://127.0.0.1:9",  # discard: nobody listens
)
for _name in ("CONFIG", "LOCAL", "SHARED", "MANIFESTS", "TIERS", "VERIFY"):
    os.environ.pop(f"FASTLOAD_{_name}", None)

import vllm
from engines import Engines
from tiny_models import make_llama


def pytest_report_header() -> str:
    """Which vLLM it is."""
    return f"vllm {vllm.__version__} from {vllm.__path__[0]}"


@pytest.fixture(scope="session")
def engines() -> Engines:
    """Starts engines, and remembers what vLLM's own loader made of a model."""
    return Engines()


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in a plain folder."""
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def hub_cache() -> Iterator[Path]:
    """The cache of the hub's own client in this process, which is the local tier where none is named."""
    yield Path(_HUB_CACHE)
    for entry in os.listdir(_HUB_CACHE):
        shutil.rmtree(os.path.join(_HUB_CACHE, entry))


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[Path]:
    """A folder with tiers ``local`` and ``shared``, which the settings name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTLOAD_LOCAL", str(tmp_path / "local"))
        patch.setenv("FASTLOAD_SHARED", str(tmp_path / "shared"))
        patch.setenv("FASTLOAD_TIERS", "local,shared")
        yield tmp_path
