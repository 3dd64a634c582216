"""Tries the wheel, not the tree: without torch, as an init container has none, and beside it. By `make package`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import fastload

_CHECKOUT = Path(__file__).parents[1]
_VENVS_OWN = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
_TENSORS = 104


def main(model: str) -> None:
    """Raise where the wheel is not what it should be."""
    folder = Path(fastload.__file__).parent
    assert not folder.is_relative_to(_CHECKOUT / "src"), f"this is not the wheel but {folder}"
    assert (folder / "py.typed").exists()
    kernels = {path.name for path in (folder / "_place/kernels").iterdir()}
    assert {f"{name}.{form}.z" for name in ("hash_slabs", "hash_blocks") for form in ("ptx", "sm_90.cubin")} <= kernels
    assert len(json.loads(_run("inspect", f"./{model}", "--json").stdout)["tensors"]) == _TENSORS
    with tempfile.TemporaryDirectory() as local:
        _try_store(Path(model), local)
    if importlib.util.find_spec("torch") is None:
        _try_without_torch(folder, model)
    print(f"the wheel works {'beside' if importlib.util.find_spec('torch') else 'without'} torch")


def _try_store(model: Path, local: str) -> None:
    """Bring it from a folder, prove what was brought, and load that where torch is."""
    where = {"FASTLOAD_LOCAL": local, "FASTLOAD_SHARED": str(model.resolve().parent), "FASTLOAD_TIERS": "local,shared"}
    brought = Path(_run("warm", model.name, **where).stdout.strip())
    assert brought.is_relative_to(local) and (brought / "model.safetensors").exists()
    only = where | {"FASTLOAD_TIERS": "local"}
    proof = json.loads(_run("verify", model.name, "--json", **only).stdout)
    assert (proof["evidence"], proof["path"]) == ("manifest", str(brought)), proof
    if importlib.util.find_spec("torch") is not None:
        report = json.loads(_run("load", model.name, "--json", "--no-progress", **only).stdout)
        assert (report["tier"], report["evidence"]) == ("local", "manifest")
        assert report["bytes"] > 0 and report["blocks_verified"] > 0


def _try_without_torch(folder: Path, model: str) -> None:
    assert importlib.util.find_spec("numpy") is None
    command = Path(sys.executable).parent / "fastload"
    loaded = subprocess.run([command, "load", f"./{model}"], capture_output=True, check=False, text=True)
    assert loaded.returncode == 20, loaded
    assert "pip install 'torch>=2.4'" in loaded.stderr
    packages = [path for path in folder.parent.iterdir() if not path.name.startswith(_VENVS_OWN)]
    files = [file for path in packages for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    # As they are brought: how much Python makes of them (.pyc) is another number for each of its versions.
    megabytes = sum(file.stat().st_size for file in files if file.suffix != ".pyc") / 1e6
    print(f"it and what it needs bring {megabytes:.1f} MB")
    assert megabytes < 27


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastload", *words]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done
    return done


if __name__ == "__main__":
    main(sys.argv[1])
