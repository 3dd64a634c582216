"""Every command and every piece of code in README and docs runs; what cannot run here is read by its language's parser.

The blocks of one page run in order, in one shell and one Python, on a machine that has the models which pages speak of.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import fastload
from forked import start_python, wait_for
from hub_server import HubServer, Repo
from pages import ALL, CHECKOUT, NEEDS, Block, find_blocks, list_pages
from stored_models import COMMIT, model_files, write_cache, write_folder
from warming import environment
from writing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_COVERED_ELSEWHERE = {"docs/upgrade-and-rollback.md"}
"""By tests/warm/test_upgrade_docs.py, which checks what they lead to as well."""
_A_MODULE = """
import torch
module = torch.nn.Module()
module.lm_head = torch.nn.Linear(2, 2, bias=False)
mine = {0}
def expert_of(name): return int(name.split(".experts.")[1].split(".")[0])
"""
"""What the reader has."""
_ONLY_RANK = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
"""As torchrun would say it."""
PAGES = [page for page in list_pages() if page not in _COVERED_ELSEWHERE]


def _named(block: Block) -> str:
    return str(block)


def _runs(page: str, language: str) -> list[Block]:
    return [block for block in find_blocks(page) if block.language == language and block.needs is None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the pages' models are: a mount, the local tier and a hub, by the names that the pages use.

    Of the settings only the mount is made: a reader's own are the defaults as well.
    """
    folder = tmp_path_factory.mktemp("place")
    files = {**model_files(), "config.json": b"{}"}
    files = {name: content for name, content in files.items() if "safetensors" not in name}
    files["model.safetensors"] = pack({"lm_head.weight": ("F32", [2, 2], bytes(16))})
    for name in ("my-model", "Llama-3.1-70B-Instruct", "Llama-3.1-8B-Instruct"):
        write_folder(folder / "mount" / name, files)
    write_folder(folder / "work" / "folder", files)
    local = folder / "home" / ".cache" / "huggingface" / "hub"
    for name in ("org/model", "org/name"):
        write_cache(local, name, COMMIT, files)
        (local / f"models--{name.replace('/', '--')}" / "refs" / "revision").write_text(COMMIT)
    with HubServer({"org/model": Repo(files), "org/name": Repo(files)}) as hub:
        yield {
            "HOME": str(folder / "home"),
            "WORK": str(folder / "work"),
            "FASTLOAD_SHARED": str(folder / "mount"),
            "HF_ENDPOINT": hub.url,
            **_ONLY_RANK,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }


@pytest.mark.parametrize("page", [page for page in PAGES if _runs(page, "sh")])
def test_the_commands_of_a_page_run(page: str, place: dict[str, str]) -> None:
    script = "\n".join(f"# {block}\n{block.text}" for block in _runs(page, "sh"))
    done = subprocess.run(
        ["sh", "-euxc", f"fastload warm my-model >&2\n{script}"],
        cwd=place["WORK"],
        env=environment(**place),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if _runs(page, "python")])
def test_the_code_of_a_page_runs(page: str, place: dict[str, str]) -> None:
    code = _A_MODULE + "\n".join(block.text for block in _runs(page, "python"))
    done = wait_for(start_python(["-c", code], environment(**place), place["WORK"], torch=True), timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", ALL, ids=_named)
def test_a_block_is_what_it_says(block: Block) -> None:
    """For its language's parser; and a mark says one of the few reasons there are."""
    assert block.needs is None or block.needs in NEEDS
    if block.language == "sh":
        subprocess.run(["sh", "-n"], input=block.text, text=True, check=True)
    elif block.language == "python":
        ast.parse(block.text)
    elif block.language == "yaml":
        list(yaml.safe_load_all(block.text))
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    else:
        assert block.language in {"", "text"}, "a language that nobody checks"


_REASONS = re.compile(
    r"make|pip|apt|cuda|docker|kubectl|vllm|module|pipeline|transformers|bench|sglang|localhost|warm meta-llama"
    r"|--device cuda"
)


def test_what_is_marked_is_few_and_for_a_reason() -> None:
    marked = [block for block in ALL if block.needs is not None and not block.page.startswith("examples/")]
    assert len(marked) <= len([block for block in ALL if block.language in {"sh", "python"}]) / 2
    for block in marked:
        assert _REASONS.search(block.text), block


def test_the_flags_that_pages_name_exist() -> None:
    """Also those outside of blocks: each ``--flag`` after ``fastload VERB`` in backticks."""
    from fastload.cli.entry import build_parser

    verbs = build_parser()._subparsers
    assert verbs is not None
    choices = verbs._group_actions[0].choices
    assert isinstance(choices, dict)
    for page in list_pages():
        for verb, rest in re.findall(r"`fastload (\w+)((?: [^`]*)?)`", (CHECKOUT / page).read_text()):
            assert verb in choices, f"{page}: fastload {verb}"
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest):
                assert flag in choices[verb]._option_string_actions, f"{page}: fastload {verb} {flag}"


def test_relative_links_lead_somewhere() -> None:
    for page in list_pages():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", (CHECKOUT / page).read_text()):
            if "://" not in target:
                assert os.path.exists(os.path.join(CHECKOUT, os.path.dirname(page), target)), f"{page}: {target}"


def _rows(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = (CHECKOUT / page).read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(head)) + 2
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[first:])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_speed_of_storage_has_a_source_and_its_times_follow() -> None:
    page = "docs/choosing-storage.md"
    links = set(re.findall(r"^\[([^]]+)\]: https://\S+$", (CHECKOUT / page).read_text(), re.MULTILINE))
    rows = _rows(page, "| storage | GB/s")
    assert len(rows) >= 6
    for what, speed, *times, source in rows:
        link = re.search(r"\[(\w+)\]$", source)
        assert source.startswith("measured here: `") or source == "100 / 8" or (link and link[1] in links), what
        for nbytes, time in zip((16, 141, 810), times, strict=True):
            number, unit = time.split()
            said_s = float(number) * {"s": 1, "min": 60}[unit]
            assert said_s == pytest.approx(nbytes / float(speed), rel=0.07), (what, time)
    for what, size, seconds, speed, source in _rows(page, "| load | size"):
        link = re.search(r"\[(\w+)\]$", source)
        assert link and link[1] in links, what
        if speed:
            assert float(size.split()[0]) / float(seconds) == pytest.approx(float(speed), rel=0.05)


def test_every_row_of_the_matrix_says_whose_word_it_is() -> None:
    for what, *_, source in _rows("docs/choosing-storage.md", "| | hostPath"):
        assert source or what == "example"


def test_every_exit_code_has_a_cure() -> None:
    text = (CHECKOUT / "docs" / "troubleshooting.md").read_text()
    from fastload.cli.entry import import_verbs, list_exit_codes

    import_verbs()  # the doctor has one of its own
    codes = re.findall(r"^ +(\d+) ", list_exit_codes(), re.MULTILINE)
    assert "22" in codes
    for code in codes:
        assert re.search(rf"^\| {code} \|", text, re.MULTILINE), code


@pytest.mark.parametrize("page", list_pages())
def test_no_command_hides_in_an_indented_block(page: str) -> None:
    """Which would neither be run nor be marked; what is shown there is output, a usage line or a drawing."""
    lines = (CHECKOUT / page).read_text().splitlines()
    command = re.compile(r"    (pip|python|vllm|curl|kubectl|import|with|export)\b")
    indented = [line for before, line in pairwise(lines) if not before and command.match(line)]
    assert not indented


def test_the_wheel_that_pages_name_is_the_one_that_is_built() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wheel = f"{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"
    for page in ("README.md", "docs/index.md", "docs/install.md"):
        assert set(re.findall(r"[\w.-]+\.whl", (CHECKOUT / page).read_text())) == {wheel}


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        (":func:<code>~fastload.load</code>", "<code>fastload.load</code>"),
        ("<code>--deadline</code>", '<code><span class="flag">--deadline</span></code>'),
        ("<code>tests/warm/test_many.py</code>", "<code>tests/<wbr>warm/<wbr>test_<wbr>many.py</code>"),
        ("<code>a/b_c</code>", "<code>a/b_c</code>"),
        ("<code><span>a_long_name_in_a_block</span></code>", "<code><span>a_long_name_in_a_block</span></code>"),
    ],
)
def test_what_the_site_makes_of_code(html: str, shown: str) -> None:
    assert _load_hook().on_page_content(html) == shown


def _load_hook() -> ModuleType:
    specification = importlib.util.spec_from_file_location("site_hook", CHECKOUT / "docs" / "site_hook.py")
    assert specification is not None and specification.loader is not None
    hook = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(hook)
    return hook


def test_every_public_name_is_in_the_reference() -> None:
    """By the name that users import it by; the build fails where one has no anchor (docs/site_hook.py)."""
    named = re.findall(r"^::: fastload\.(\w+)$", (CHECKOUT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) - {"errors"} == set(fastload.__all__)


def test_a_reference_that_lacks_a_name_is_not_built() -> None:
    hook = _load_hook()
    whole = "".join(f'<h3 id="fastload.{name}">' for name in fastload.__all__)
    assert hook.find_missing(whole) == []
    assert hook.find_missing(whole.replace('id="fastload.prune"', "")) == ["prune"]


_COLUMNS = 82
"""What fits beside the site's navigation on a screen of 1280 pixels; longer lines are cut until one scrolls."""


@pytest.mark.parametrize("block", [block for block in ALL if block.page.startswith("docs/")], ids=_named)
def test_a_block_fits_beside_the_navigation(block: Block) -> None:
    assert max(map(len, block.text.splitlines())) <= _COLUMNS
