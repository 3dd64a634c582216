"""``transfer="hub"``: whatever huggingface_hub prints or logs, no signed link and no token is in it."""

from __future__ import annotations

import logging
import subprocess
import traceback
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import NetworkError, Options
from fastload._store.hub.redacting import redact, redacting
from hub_clients import TOKEN
from hub_faults import Refuse, Stall
from hub_server import HubServer, Repo
from warming import FASTLOAD, MIB, Tiers, large_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "org/name"
SHARD = "model.safetensors"
LINK = "https://cdn.example/a/b?X-Amz-Expires=60&X-Amz-Signature=abc%2Fdef"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    repos = {REPO: Repo({SHARD: large_shard(3 * MIB, 1), "config.json": b"{}"})}
    with HubServer(repos, tokens={TOKEN: frozenset({REPO})}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield server


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that any library logs."""
    caplog.set_level(logging.DEBUG)
    for name in ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def is_secret(text: str) -> bool:
    """The hub signs by ``Signature=secret…``."""
    return "Signature=" in text or "secret" in text or TOKEN in text


@pytest.mark.parametrize("level", ["warning", "debug"])
def test_a_broken_connection_is_told_without_the_link_that_was_signed(
    tmp_path: Path, hub: HubServer, level: str
) -> None:
    """A process of its own: the library reads these settings when it is imported."""
    hub.faults.add(Stall(MIB, 5), host="cdn")
    more = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_VERBOSITY": level}
    tiers = Tiers(tmp_path, tiers="local,hub", more=more | {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_DEBUG": "1"})
    words = [*FASTLOAD, "warm", REPO, "--transfer", "hub"]
    done = subprocess.run(words, env=tiers.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Error while downloading from" in done.stderr, "it is told all the same"
    assert f"{hub.cdn_url}/cdn/" in done.stderr
    assert not is_secret(done.stdout + done.stderr)


def test_what_goes_to_the_programs_own_handlers_has_none_either(
    tmp_path: Path, hub: HubServer, everything: pytest.LogCaptureFixture
) -> None:
    fastload.warm(REPO, options=Options(local=str(tmp_path), transfer="hub"))
    assert hub.served_bytes("/cdn/")
    assert f"{hub.cdn_url}/cdn/" in everything.text, "it was logged where the bytes came from"
    theirs = [record for record in everything.records if record.name.startswith(("huggingface_hub", "http"))]
    assert theirs and not any(is_secret(record.getMessage()) for record in theirs)
    assert not is_secret(everything.text)


@pytest.mark.parametrize("status", [403, 404])
def test_an_error_keeps_its_meaning_and_neither_it_nor_its_causes_have_the_link(
    tmp_path: Path, hub: HubServer, everything: pytest.LogCaptureFixture, status: int
) -> None:
    hub.faults.add(Refuse(status), host="cdn", times=None)
    with pytest.raises(NetworkError) as caught:
        fastload.warm(REPO, options=Options(local=str(tmp_path), transfer="hub"))
    assert "huggingface_hub did not bring it (" in str(caught.value)
    told = "".join(traceback.format_exception(caught.value))
    assert str(status) in told and "hf_hub_download" in told, "what it was, and where"
    assert not is_secret(told + everything.text)


def test_what_others_log_meanwhile_is_left_alone_and_so_is_all_of_it_afterwards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def say() -> list[str]:
        caplog.clear()
        for name in ("mine", "huggingface_hub.made.just.now"):
            logging.getLogger(name).warning("from %s", LINK)
        return [record.getMessage() for record in caplog.records]

    with redacting(), redacting():
        assert say() == [f"from {LINK}", "from https://cdn.example/a/b?…"]
        with redacting():
            pass
        assert say() == [f"from {LINK}", "from https://cdn.example/a/b?…"]
    assert say() == [f"from {LINK}"] * 2
    assert all(not handler.filters for handler in logging.root.handlers)


def test_an_error_that_is_logged_with_its_traceback_is_told_without_it(caplog: pytest.LogCaptureFixture) -> None:
    with redacting():
        logging.getLogger("huggingface_hub.file_download").error("it broke", exc_info=ValueError(LINK))
    assert "ValueError: https://cdn.example/a/b?…" in caplog.text
    assert "X-Amz-Signature" not in caplog.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"GET {LINK} HTTP/1.1", "GET https://cdn.example/a/b?… HTTP/1.1"),
        ("(b'Location', b'/a?Expires=1&Signature=x'), (b'Date', b'')", "(b'Location', b'/a?…'), (b'Date', b'')"),
        (f"Authorization: Bearer {TOKEN}'", "Authorization: …'"),
        (f"the token {TOKEN} is", "the token … is"),
        ("hf_jwt_eyJhbGciOiJFZERTQSJ9.eyJyZWFkIjp0cnVlfQ.x_y", "…"),
        ("is it there? a=b, yes", "is it there? a=b, yes"),
        ("hf_hub_download", "hf_hub_download"),
    ],
)  # fmt: skip
def test_what_is_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown
