"""Settings: one name in several places, the stronger place wins, and nothing is misread."""

from __future__ import annotations

import contextlib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload import options as room
from fastload._settings.values import Share, parse_duration, parse_size
from fastload.errors import FastloadError, StoreError, UsageError
from fastload.options import Options, Settings, decide_settings

MIB = 1 << 20


class Places:
    """All places of settings, in folders of the test."""

    def __init__(self, folder: Path) -> None:
        self.system = folder / "etc.toml"
        self.home = folder / "home"
        self.named = folder / "named.toml"
        self.environment = {"HOME": str(self.home)}
        (self.home / ".config/fastload").mkdir(parents=True)

    @property
    def user(self) -> Path:
        return self.home / ".config/fastload/config.toml"

    def name_file(self) -> None:
        self.environment["FASTLOAD_CONFIG"] = str(self.named)

    def decide(self, options: Options | None = None, **keywords: Any) -> Settings:
        return decide_settings(options, keywords, self.environment)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    places = Places(tmp_path)
    monkeypatch.setattr(room, "_SYSTEM_CONFIG", str(places.system))
    return places


def test_defaults_are_those_of_the_table(places: Places) -> None:
    settings = places.decide()
    assert {name: getattr(settings, name) for name in room._PARSERS} == {
        "local": str(places.home / ".cache/huggingface/hub"),
        "shared": (),
        "tiers": ("local", "shared", "hub"),
        "manifests": None,
        "verify": "auto",
        "signature_key": None,
        "write_through": "auto",
        "transfer": "ranged",
        "local_max_bytes": None,
        "min_free": Share(fraction=0.05),
        "max_rate": None,
        "deadline": None,
        "require_pinned": False,
        "reader": "auto",
        "gds": "auto",
        "staging_bytes": 256 * MIB,
        "device_bytes": None,
    }
    assert settings.origins == {}
    assert settings.aliases["llama-70b"][0] == "meta-llama/Llama-3.1-70B-Instruct"


def test_settings_have_the_same_names_everywhere() -> None:
    names = {field.name for field in fields(Options)}
    assert names == {field.name for field in fields(Settings)} - {"aliases", "hub", "cufile", "measurements", "origins"}
    assert names == room._PARSERS.keys()
    assert all(getattr(Options(), name) is None for name in names)  # else an unset field would not fall through


def test_each_place_is_stronger_than_those_before(places: Places) -> None:
    places.system.write_text("staging_bytes = 1")
    assert places.decide().staging_bytes == 1
    places.user.write_text("staging_bytes = 2")
    assert places.decide().staging_bytes == 2
    places.named.write_text("staging_bytes = 3")
    places.name_file()
    assert places.decide().staging_bytes == 3
    places.environment["FASTLOAD_STAGING_BYTES"] = "4"
    assert places.decide().staging_bytes == 4
    assert places.decide(Options(staging_bytes=5)).staging_bytes == 5
    assert places.decide(Options(staging_bytes=5), staging_bytes=6).staging_bytes == 6


def test_what_a_place_does_not_set_falls_through(places: Places) -> None:
    places.system.write_text('reader = "mmap"')
    places.user.write_text('staging_bytes = "1Mi"')
    places.environment["FASTLOAD_DEVICE_BYTES"] = "2Gi"
    settings = places.decide(Options(), reader=None, staging_bytes=None)
    assert (settings.reader, settings.staging_bytes, settings.device_bytes) == ("mmap", MIB, 2 << 30)
    assert settings.origins == {
        "reader": str(places.system),
        "staging_bytes": str(places.user),
        "device_bytes": "the environment",
    }


def test_nothing_is_a_value_too(places: Places) -> None:
    places.user.write_text("device_bytes = 5")
    assert places.decide(device_bytes=0).device_bytes == 0


def test_an_empty_variable_is_not_set(places: Places) -> None:
    places.environment |= {"FASTLOAD_READER": "", "FASTLOAD_CONFIG": ""}
    assert places.decide().reader == "auto"


def test_the_environment_is_the_processs_own_where_none_is_given(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTLOAD_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(places.home))
    monkeypatch.setenv("FASTLOAD_READER", "buffered")
    assert decide_settings(None, {}).reader == "buffered"


def test_without_a_home_there_is_no_file_of_the_user(places: Places) -> None:
    places.user.write_text('reader = "mmap"')
    del places.environment["HOME"]
    assert places.decide().reader == "auto"


def refusal(places: Places, options: Options | None = None, **keywords: Any) -> FastloadError:
    with pytest.raises(FastloadError) as caught:
        places.decide(options, **keywords)
    return caught.value


def test_an_unknown_name_is_refused_with_the_nearest_one_and_its_place(places: Places) -> None:
    places.user.write_text("stagingbytes = 1")
    error = refusal(places)
    assert isinstance(error, UsageError)
    assert "no setting 'stagingbytes'" in error.what
    assert str(places.user) in error.what
    assert error.hint == "Did you mean staging_bytes?"


def test_an_unknown_name_like_no_other_is_refused_with_all_there_are(places: Places) -> None:
    error = refusal(places, colour="red")
    assert isinstance(error, UsageError)
    assert "the call" in error.what
    assert "reader, gds, staging_bytes, device_bytes" in error.hint


@pytest.mark.parametrize(
    ("keywords", "variable", "expected"),
    [
        ({"reader": "fast"}, None, "reader in the call: no reader 'fast'"),
        ({"reader": 3}, None, "reader in the call: no reader 3"),
        ({"staging_bytes": "lots"}, None, "staging_bytes in the call: 'lots' is no size"),
        ({}, ("FASTLOAD_READER", "AUTO"), "FASTLOAD_READER in the environment: no reader 'AUTO'"),
        ({}, ("FASTLOAD_DEVICE_BYTES", "-1"), "FASTLOAD_DEVICE_BYTES in the environment: '-1' is no size"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_place(
    places: Places, keywords: dict[str, Any], variable: tuple[str, str] | None, expected: str
) -> None:
    if variable:
        places.environment[variable[0]] = variable[1]
    error = refusal(places, **keywords)
    assert isinstance(error, UsageError)
    assert error.what == expected
    assert error.hint


def test_a_bad_value_that_a_stronger_place_overrules_is_refused_all_the_same(places: Places) -> None:
    places.system.write_text('reader = "fast"')
    assert "reader in " + str(places.system) in str(refusal(places, reader="auto"))


@pytest.mark.parametrize("value", ["1979-05-27", "[1, 2]", "true", "{a = 1}", "nan", "inf", "-5"])
def test_a_value_of_another_type_is_refused(places: Places, value: str) -> None:
    places.user.write_text(f"staging_bytes = {value}")
    assert "is no size" in str(refusal(places))


def test_a_table_of_another_name_is_an_unknown_setting(places: Places) -> None:
    places.user.write_text("[network]\nretries = 3")
    assert "no setting 'network'" in str(refusal(places))


def test_the_file_that_the_environment_names_must_be_there(places: Places) -> None:
    places.name_file()
    error = refusal(places)
    assert isinstance(error, UsageError)
    assert str(places.named) in error.what
    assert "unset" in error.hint


@pytest.mark.parametrize("text", ["reader = ", "reader = 'a'\nreader = 'b'", "[[[", "x = " + "[" * 20_000])
def test_a_file_that_is_no_toml_is_refused_with_its_name(places: Places, text: str) -> None:
    places.user.write_text(text)
    error = refusal(places)
    assert isinstance(error, UsageError)
    assert f"'{places.user}' is no TOML" in error.what


def test_a_file_that_is_no_text_is_refused_with_its_name(places: Places) -> None:
    places.user.write_bytes(b'reader = "\xff"')
    assert "is no TOML" in str(refusal(places))


def test_a_folder_in_the_place_of_a_file_is_a_store_error(places: Places) -> None:
    places.system.mkdir()
    error = refusal(places)
    assert isinstance(error, StoreError)
    assert error.path == str(places.system)


def deny(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening ``path`` is refused, to root as well."""
    real = open

    def open_or_refuse(name: Any, *arguments: Any, **keywords: Any) -> Any:
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(name, *arguments, **keywords)

    monkeypatch.setattr("builtins.open", open_or_refuse)


def test_a_named_file_that_may_not_be_read_is_a_store_error(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    places.name_file()
    deny(places.named, monkeypatch)
    error = refusal(places)
    assert isinstance(error, StoreError)
    assert error.path == str(places.named)
    assert "Permission denied" in error.reason


def test_somebody_elses_file_that_may_not_be_read_is_passed_over(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.user.write_text('reader = "mmap"')
    deny(places.user, monkeypatch)
    assert places.decide().reader == "auto"


def test_a_home_that_is_no_folder_has_no_file(places: Places) -> None:
    places.environment["HOME"] = "/dev/null"
    assert places.decide().reader == "auto"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1KiB", 1024),
        ("1kB", 1000),
        ("1B", 1),
        ("500Gi", 500 << 30),
        ("1.5GB", 1_500_000_000),
        ("0.5Mi", 1 << 19),
        ("1.5Ti", 3 << 39),
        (" 2 Mi ", 2 << 20),
        ("9007199254740993", 9_007_199_254_740_993),
        (9_007_199_254_740_993, 9_007_199_254_740_993),
        ("8191.9999999999999999Ti", 9_007_199_254_740_991),
    ],
)
def test_sizes(text: int | str, expected: int) -> None:
    assert parse_size(text) == expected


NO_SIZES = (
    "",
    "Mi",
    "-1",
    "1e9",
    "1,5Gi",
    "1_000",
    "0x10",
    "1 000",
    "1Pi",
    "1i",
    "5ib",
    "1.Gi",
    ".5Gi",
    "nan",
    "٣",
    "1\n2",
)


@pytest.mark.parametrize(
    "value",
    [
        *NO_SIZES,
        *(-1, True, False, None, b"1", 1e30),
        pytest.param("9" * 400, id="beyond a float"),
        pytest.param("9" * 5000, id="beyond what int() reads"),
    ],
)
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_size(value)


@given(st.integers(0, 1 << 62))
def test_any_number_of_bytes_is_itself(nbytes: int) -> None:
    assert parse_size(nbytes) == parse_size(str(nbytes)) == parse_size(f"{nbytes}B") == nbytes


@given(
    st.integers(0, 1 << 20), st.sampled_from("kmgtKMGT"), st.sampled_from(["", "i"]), st.sampled_from(["", "b", "B"])
)
def test_units_are_powers_of_1000_or_with_an_i_of_1024(number: int, unit: str, binary: str, end: str) -> None:
    base = 1024 if binary else 1000
    assert parse_size(f"{number}{unit}{binary}{end}") == number * base ** ("kmgt".index(unit.lower()) + 1)


@given(st.text(max_size=30) | st.from_regex(r"[0-9.kKiMbB ]{1,12}", fullmatch=True))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_size(text) >= 0


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("shared", "/mnt/a:/mnt/b/", ("/mnt/a", "/mnt/b")),
        ("shared", ["/mnt/a", "/mnt/a"], ("/mnt/a",)),
        ("shared", Path("/mnt/a:b"), ("/mnt/a:b",)),
        ("local_max_bytes", 1e9, 1_000_000_000),
        ("tiers", "local, shared", ("local", "shared")),
        ("tiers", ["hub"], ("hub",)),
        ("min_free", "5%", Share(fraction=0.05)),
        ("min_free", "50Gi", Share(nbytes=50 << 30)),
        ("max_rate", "500M", 500_000_000),
        ("deadline", "15m", 900.0),
        ("deadline", 90, 90.0),
        ("require_pinned", "on", True),
        ("require_pinned", False, False),
        ("local", "/x/../y", "/y"),
    ],
)
def test_values_are_parsed_into_what_they_mean(places: Places, name: str, value: Any, parsed: Any) -> None:
    assert getattr(places.decide(**{name: value}), name) == parsed


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("shared", "models", "no absolute path"),
        ("shared", 5, "no list of folders"),
        ("tiers", "nvme", "no tier 'nvme'"),
        ("tiers", [], "no list of tiers"),
        ("min_free", "101%", "more than all"),
        ("min_free", "0.05", "no whole number"),
        ("min_free", 0.1, "no whole number"),
        ("local_max_bytes", 1.5, "no whole number"),
        ("max_rate", "1.5b", "no whole number"),
        ("max_rate", "fast", "no size"),
        ("max_rate", "0", "lets nothing through"),
        ("deadline", "soon", "no duration"),
        ("require_pinned", "maybe", "neither on nor off"),
        ("local", "models", "no absolute path"),
        ("write_through", "yes", "no write_through 'yes'"),
        ("transfer", "xet", "no transfer 'xet'"),
    ],
)
def test_values_that_mean_nothing_are_refused(places: Places, name: str, value: Any, why: str) -> None:
    error = refusal(places, **{name: value})
    assert isinstance(error, UsageError)
    assert why in error.what


def test_a_share_without_its_sign_is_refused_with_both_spellings(places: Places) -> None:
    assert "50Gi or 5%" in str(refusal(places, min_free="0.05"))


def test_a_share_is_bytes_or_a_part_of_a_whole() -> None:
    assert Share(fraction=0.05).of(1000) == 50
    assert Share(nbytes=7).of(1000) == 7


def test_aliases_come_from_the_files_and_later_ones_win(places: Places) -> None:
    places.system.write_text('[aliases]\nllama-8b = "mine/one"\nours = ["a/b", "c"]')
    places.user.write_text('[aliases]\nours = ["d/e"]')
    aliases = places.decide().aliases
    assert (aliases["llama-8b"], aliases["ours"]) == (("mine/one",), ("d/e",))
    assert "llama-70b" in aliases


@pytest.mark.parametrize("text", ["aliases = 5", "[aliases]\nx = 5", "[aliases]\nx = []", "[aliases]\nx = [5]"])
def test_an_alias_that_is_no_list_of_names_is_refused_with_its_file(places: Places, text: str) -> None:
    places.user.write_text(text)
    error = refusal(places)
    assert isinstance(error, UsageError)
    assert str(places.user) in error.what


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({}, "home/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/hub"),
        ({"HF_HOME": "/hf"}, "/hf/hub"),
        ({"HF_HOME": "/hf", "HF_HUB_CACHE": "/cache"}, "/cache"),
        ({"HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
    ],
)
def test_the_local_tier_is_where_the_hubs_own_tools_keep_things(
    places: Places, variables: dict[str, str], cache: str, tmp_path: Path
) -> None:
    places.environment |= variables
    assert places.decide().local == str(tmp_path / cache)
    assert places.decide(local="/mine").local == "/mine"


def test_a_home_that_nobody_has_is_no_folder(places: Places) -> None:
    places.environment |= {"HF_HOME": "~nobody-of-this-name/hf", "FASTLOAD_TIERS": "local,shared"}
    settings = places.decide()
    assert (settings.local, settings.hub.home, settings.tiers) == ("", "", ("shared",))
    settings = places.decide(local="/mine")
    assert (settings.local, settings.tiers) == ("/mine", ("local", "shared"))


def test_what_the_hubs_tools_are_told_is_understood(places: Places) -> None:
    places.environment |= {
        "HF_ENDPOINT": "http://mirror/",
        "HF_HUB_OFFLINE": "1",
        "https_proxy": "http://user:secret@proxy:3128",
        "NO_PROXY": "internal",
        "SSL_CERT_FILE": "/ca.pem",
        "REQUESTS_CA_BUNDLE": "/elder.pem",
    }
    hub = places.decide().hub
    assert (hub.endpoint, hub.is_offline, hub.no_proxy, hub.ca_file) == ("http://mirror", True, "internal", "/ca.pem")
    assert hub.https_proxy == "http://user:secret@proxy:3128"
    assert "secret" not in repr(hub)
    places.environment["SSL_CERT_FILE"] = ""
    assert places.decide().hub.ca_file == "/elder.pem"


@pytest.mark.parametrize("name", room._PARSERS)
@pytest.mark.parametrize(
    "value", ["0x" + "f" * 5000, "[0x" + "f" * 5000 + "]", '"~\\u0000x"', '"\\u0000"', "nan", "1979-05-27"]
)
def test_no_value_in_a_file_leaves_as_anything_but_a_usage_error(places: Places, name: str, value: str) -> None:
    places.system.write_text(f"{name} = {value}\n")
    with pytest.raises(UsageError) as refusal:
        places.decide()
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("name", [field.name for field in fields(Options)])
@pytest.mark.parametrize(
    "value", [10**5000, "/tmp/\ud800", "~\0", "9" * 5000], ids=["number", "surrogate", "nul", "digits"]
)
def test_no_option_leaves_as_anything_but_a_usage_error(places: Places, name: str, value: Any) -> None:
    with pytest.raises(UsageError):
        places.decide(Options(**{name: value}))


@pytest.mark.parametrize("value", ["999999999d", "73001d", "120000d"])
def test_a_deadline_beyond_what_a_timer_takes_is_refused(places: Places, value: str) -> None:
    places.environment["FASTLOAD_DEADLINE"] = value
    with pytest.raises(UsageError, match="73000d"):
        places.decide()
    assert parse_duration("73000d") == 73000 * 86400


def test_a_named_pipe_holds_no_settings(places: Places) -> None:
    os.mkfifo(places.system)
    with pytest.raises(StoreError, match="named pipe"):
        places.decide()
