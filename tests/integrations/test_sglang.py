"""The plugin for SGLang against a stand-in that is cut out of its source (0.5.23): SGLang itself wants a GPU."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import fastload
from forked import start_python, wait_for
from stored_models import COMMIT, write_cache
from writing import pack

if TYPE_CHECKING:
    from pathlib import Path

_STAND_IN = """
import dataclasses, enum, glob, os

class LoadFormat(str, enum.Enum):
    SAFETENSORS = "safetensors"
    PRIVATE = "private"

def maybe_add_mtp_safetensors(files, folder, index, config):
    return files

class DefaultModelLoader:
    @dataclasses.dataclass
    class Source:
        model_or_path: str
        revision: str = None
        prefix: str = ""
        fall_back_to_pt: bool = True
        allow_patterns_overrides: list = None
        model_config: object = None

    def __init__(self, load_config):
        self.load_config = load_config
        assert load_config.model_loader_extra_config == {}

    def _prepare_weights(self, model_name_or_path, revision, fall_back_to_pt, allow_patterns_overrides=None):
        assert self.load_config.load_format == LoadFormat.SAFETENSORS
        return model_name_or_path, sorted(glob.glob(os.path.join(model_name_or_path, "*.safetensors"))), True

    def load_model(self, *, model_config, device_config):
        weights = self._get_weights_iterator(self.Source(model_config.model_path, prefix="p."))
        return [name for name, _ in weights] if model_config.is_thorough else next(weights)[0]
"""
_USE = """
from types import SimpleNamespace
from fastload.integrations.sglang import register
register()
print(sorted(name for name in ("torch", "sglang.srt.model_loader.loader") if name in sys.modules))
import importlib
loader = importlib.import_module("sglang.private.private_model_loader").PrivateModelLoader(SimpleNamespace(
    load_format="private", download_dir=None, draft_model_idx=None, model_loader_extra_config={"verify": "auto"}))
wanted = SimpleNamespace(model_path="org/name", is_thorough=IS_THOROUGH)
print(loader.load_model(model_config=wanted, device_config=None))
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with as much of SGLang as the plugin touches."""
    package = tmp_path / "site" / "sglang" / "srt" / "model_loader"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "loader.py").write_text(_STAND_IN)
    return tmp_path / "site"


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only file of ``org/name``, which only the local tier has; its end is far from the first tensor."""
    monkeypatch.setenv("FASTLOAD_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("FASTLOAD_TIERS", "local")
    monkeypatch.setenv("FASTLOAD_STAGING_BYTES", "4Mi")
    content = pack({str(number): ("U8", [1 << 20], bytes(1 << 20)) for number in range(24)})
    return write_cache(tmp_path / "local", "org/name", COMMIT, {"model.safetensors": content}) / "model.safetensors"


def _run(stand_in: Path, code: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(stand_in)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def _run_with_torch(stand_in: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Where it is not asked what has been imported by when."""
    return wait_for(start_python(["-c", f"import sys; sys.path.insert(0, {str(stand_in)!r})\n{code}"], torch=True))


def test_it_loads_a_name_and_imports_nothing_before(stand_in: Path, shard: Path) -> None:
    done = _run(stand_in, _USE.replace("IS_THOROUGH", "True"))
    assert done.stdout == f"[]\n{[f'p.{number}' for number in range(24)]}\n", done.stderr


def test_the_proof_is_finished_even_if_the_model_stops_asking(stand_in: Path, shard: Path) -> None:
    content = shard.read_bytes()
    shard.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = _run_with_torch(stand_in, _USE.replace("IS_THOROUGH", "False"))
    assert done.returncode != 0
    assert f"IntegrityError: '{shard}'" in done.stderr


_UPDATE = """
import threading, warnings
from types import SimpleNamespace
warnings.simplefilter("error")
from fastload.integrations.sglang.loader import FastloadLoader
loader = FastloadLoader(SimpleNamespace(
    load_format="private", download_dir=None, draft_model_idx=None, model_loader_extra_config={}))
weights = loader._get_weights_iterator(loader.Source("org/name", prefix="p."))
taken = [next(weights)[0] for _ in range(TAKEN)]
if TAKEN == 24:
    taken += [name for name, _ in weights]
weights.close()
print(len(taken), [thread.name for thread in threading.enumerate()], loader._streams)
"""


@pytest.mark.parametrize("taken", [1, 24])
def test_an_update_that_asks_for_the_iterator_itself_leaves_nothing_behind(
    stand_in: Path, shard: Path, taken: int
) -> None:
    """As ``weight_updater`` and ``expert_backup_manager`` do."""
    done = _run_with_torch(stand_in, _UPDATE.replace("TAKEN", str(taken)))
    assert done.stdout == f"{taken} ['MainThread'] []\n", done.stderr
    assert ("a reload stopped before the end" in done.stderr) == (taken == 1)


def test_a_wrong_block_is_mended_from_another_tier(
    stand_in: Path, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = shard.read_bytes()
    write_cache(tmp_path / "shared", "org/name", COMMIT, {"model.safetensors": content})
    fastload.warm("org/name")
    shard.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setenv("FASTLOAD_SHARED", str(tmp_path / "shared"))
    monkeypatch.setenv("FASTLOAD_TIERS", "local,shared")
    done = _run_with_torch(stand_in, _USE.replace("IS_THOROUGH", "False"))
    assert done.returncode == 0, done.stderr
    assert shard.read_bytes() == content


def test_another_private_loader_stays(stand_in: Path) -> None:
    (stand_in / "sglang" / "private").mkdir()
    (stand_in / "sglang" / "private" / "__init__.py").touch()
    (stand_in / "sglang" / "private" / "private_model_loader.py").write_text("PrivateModelLoader = 'theirs'")
    code = """
from fastload.integrations.sglang import register
register()
import importlib
print(importlib.import_module("sglang.private.private_model_loader").PrivateModelLoader)
"""
    done = _run(stand_in, code)
    assert done.stdout == "theirs\n"
    assert "another private loader is installed" in done.stderr
