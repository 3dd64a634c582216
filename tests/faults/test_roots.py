"""Nothing outside the declared roots is ever opened."""

from __future__ import annotations

import shutil

import pytest

from arena import in_memory
from roots import lead_astray, write_astray
from workers import shared_worker

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_names_that_lead_out_lead_nowhere() -> None:
    with in_memory() as folder:
        row = lead_astray(shared_worker(torch=True), folder)
        row.check()
        assert row.ends


def test_nothing_is_written_where_links_lead() -> None:
    with in_memory() as folder:
        row = write_astray(shared_worker(torch=True), folder)
        row.check()
        assert row.ends["exit 15"]
