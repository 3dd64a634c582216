"""What ``--model-loader-extra-config`` takes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from fastload import Options, UsageError
from fastload.integrations.extra_config import parse_extra_config
from fastload.options import decide_settings

_VALUES: dict[str, Any] = {
    "local": "/local",
    "shared": "/a:/b",
    "tiers": "local,shared",
    "manifests": "/manifests",
    "verify": "require",
    "signature_key": "/key.pem",
    "write_through": "on",
    "transfer": "hub",
    "local_max_bytes": "500Gi",
    "min_free": "5%",
    "max_rate": "1G",
    "deadline": "15m",
    "require_pinned": True,
    "reader": "direct",
    "staging_bytes": "64Mi",
    "device_bytes": "1Gi",
    "gds": "on",
}


def test_it_takes_every_setting() -> None:
    known = {name: value for name, value in _VALUES.items() if name in {field.name for field in fields(Options)}}
    assert {field.name for field in fields(Options)} <= set(_VALUES)
    assert parse_extra_config(known, None).options == Options(**known)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stagging_bytes": 1}, "no setting 'stagging_bytes' (in --model-loader-extra-config). Did you mean staging_"),
        ({"reader": "fast"}, "reader in --model-loader-extra-config: no reader 'fast'"),
        ({"enable_multithread_load": True}, "no setting 'enable_multithread_load'"),
        ('{"reader": "direct"}', "--model-loader-extra-config got str"),
        ({"names": 3}, "names in --model-loader-extra-config got int"),
        ({"names": {"/models/name": 3}}, "names in --model-loader-extra-config has int for '/models/name'"),
        ({1: "direct"}, "--model-loader-extra-config has the key 1"),
        ({"group": "no"}, "group in --model-loader-extra-config got str"),
    ],
)
def test_what_it_does_not_know_is_an_error_that_names_it(config: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_extra_config(config, None)
    assert message in str(caught.value)


def test_the_key_of_host_is_passed_on() -> None:
    assert parse_extra_config({"enable_weights_track": False}, None).of_host == {"enable_weights_track": False}


def test_ranks_load_together_unless_they_shall_not() -> None:
    assert parse_extra_config({}, None).wants_group
    assert not parse_extra_config({"group": False}, None).wants_group


def test_the_download_folder_is_the_local_tier_unless_another_is_named() -> None:
    assert parse_extra_config({}, "/models").options.local == "/models"
    assert parse_extra_config({"local": "/nvme"}, "/models").options.local == "/nvme"


def test_a_download_dir_in_a_home_that_nobody_has_is_refused() -> None:
    options = parse_extra_config({}, "~nobody-of-this-name/models").options
    with pytest.raises(UsageError, match="no absolute path"):
        decide_settings(options, {})
