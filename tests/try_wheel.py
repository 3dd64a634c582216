"""Tries the installed wheel in a venv that has no torch, as an init container has none. Run by `make package`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import fastload

_VENVS_OWN = ("pip", "setuptools", "pkg_resources", "_distutils_hack")


def main(model: str) -> None:
    """Raise where the wheel is not what it should be."""
    assert importlib.util.find_spec("torch") is None
    assert importlib.util.find_spec("numpy") is None
    folder = Path(fastload.__file__).parent
    assert folder.is_relative_to(sys.prefix), f"this is not the wheel but {folder}"
    assert (folder / "py.typed").exists()
    assert all((folder / "_place/ptx" / f"{name}.ptx").exists() for name in ("hash_slabs", "hash_blocks"))
    command = Path(sys.executable).parent / "fastload"
    found = subprocess.run([command, "inspect", "--json", f"./{model}"], capture_output=True, check=True, text=True)
    assert len(json.loads(found.stdout)["tensors"]) == 104
    loaded = subprocess.run([command, "load", f"./{model}"], capture_output=True, check=False, text=True)
    assert loaded.returncode == 20, loaded
    assert "pip install 'torch>=2.4'" in loaded.stderr
    packages = [path for path in folder.parent.iterdir() if not path.name.startswith(_VENVS_OWN)]
    files = [file for path in packages for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    print(f"the wheel works without torch; it and what it needs take {megabytes:.0f} MB")
    assert megabytes < 40


if __name__ == "__main__":
    main(sys.argv[1])
