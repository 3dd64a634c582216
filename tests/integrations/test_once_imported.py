"""A module is acted on when it is imported, and not imported for it."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING

import pytest

from fastload.integrations.once_imported import once_imported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def package(tmp_path: Path) -> Iterator[str]:
    """A package with a module that nobody has imported."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text("def speak():\n    return 'hello'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        yield "stranger"
        for name in ("stranger", "stranger.inner"):
            sys.modules.pop(name, None)


def test_acts_when_somebody_imports_it_and_once(package: str) -> None:
    finders = list(sys.meta_path)
    seen: list[ModuleType] = []
    once_imported(f"{package}.inner", seen.append)
    assert seen == []
    assert package not in sys.modules
    module = importlib.import_module(f"{package}.inner")
    assert seen == [module]
    assert sys.meta_path == finders
    importlib.reload(module)
    assert len(seen) == 1


def test_what_was_imported_is_as_it_would_have_been(package: str) -> None:
    once_imported(f"{package}.inner", lambda _: None)
    module = importlib.import_module(f"{package}.inner")
    assert module.speak() == "hello"
    assert inspect.getsource(module.speak).startswith("def speak")
    assert type(module.__loader__).__name__ == "SourceFileLoader"


def test_acts_at_once_where_it_is_there(package: str) -> None:
    module = importlib.import_module(f"{package}.inner")
    seen: list[ModuleType] = []
    once_imported(f"{package}.inner", seen.append)
    assert seen == [module]


def test_a_module_that_is_not_there_is_not_found_as_ever(package: str) -> None:
    finders = list(sys.meta_path)
    once_imported(f"{package}.nothing", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        importlib.import_module(f"{package}.nothing")
    assert sys.meta_path == finders
