"""The hub as a tier: what it has, what it has not, and what it says when it cannot say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._store.hub.listing import parse_tree
from fastload._store.hub.retry import find_asked_pause
from fastload._store.hub.tier import HubAccess, HubTier, Patience
from fastload.errors import AuthError, FastloadError, FormatError, HubError, NetworkError, UsageError
from hub_clients import CONTENT, HURRIED, TOKEN, find, hub_with, patience_with, tier_of
from hub_faults import PORTAL, Body, Cut, Drip, Headers, Redirect, Refuse, Stall, too_many_requests
from hub_server import HubServer, Repo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._store.offer import Offer
    from hub_faults import Fault

FILES = {"model.safetensors": CONTENT, "config.json": b"{}", "deep/er/tokenizer.json": b"[]", "a.txt": b""}
SHA1 = "5" * 40
INFO, TREE = "*/revision/*", "*/tree/*"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_with(FILES) as server:
        yield server


@pytest.fixture
def tier(hub: HubServer) -> Iterator[HubTier]:
    with tier_of(hub) as opened:
        yield opened


class TestWhatIsThere:
    """Repositories the hub has."""

    def test_a_moving_revision_is_asked_for_and_listed_with_what_is_known_of_each_file(
        self, hub: HubServer, tier: HubTier
    ) -> None:
        offer: Offer = find(tier)
        stored = hub.repos["org/name"].commits[hub.repos["org/name"].commit]
        assert (str(offer.tier), offer.repo, offer.commit) == ("hub", "org/name", hub.repos["org/name"].commit)
        assert [file.path for file in offer.files] == sorted(FILES)
        for file in offer.files:
            known = stored[file.path]
            digests = (known.sha256, None) if file.path.endswith(".safetensors") else (None, known.git_sha1)
            assert (file.size, file.sha256, file.git_sha1) == (len(known.content), *digests)
        assert offer.depth == 8
        assert tier.endpoint == hub.url

    def test_it_costs_two_requests_and_one_for_a_commit(self, hub: HubServer, tier: HubTier) -> None:
        find(tier)
        assert len(hub.requests) == 2
        find(tier, revision=hub.repos["org/name"].commit)
        assert len(hub.requests) == 3

    def test_a_branch_with_a_slash(self, hub: HubServer, tier: HubTier) -> None:
        pushed = hub.repos["org/name"].push({"config.json": b"1"}, ref="refs/pr/7")
        assert find(tier, revision="refs/pr/7").commit == pushed
        assert tier.find_commit("org/name", "refs/pr/7") == pushed

    def test_a_long_listing_comes_in_pages(self) -> None:
        files = {f"part-{number:03}.json": b"%d" % number for number in range(50)}
        with HubServer({"org/name": Repo(files)}, page_entries=7) as hub, tier_of(hub) as tier:
            assert [file.path for file in find(tier).files] == sorted(files)
            assert len(hub.asked(path="/tree/")) == 8

    def test_a_listing_without_end_is_refused(
        self, hub: HubServer, tier: HubTier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fastload._store.hub.tier._MAX_PAGES", 5)
        link = f'<{hub.url}/api/models/org/name/tree/main>; rel="next"'
        hub.faults.add(Headers({"Link": link}), path=TREE, times=None)
        with pytest.raises(FormatError, match="more than 5 pages"):
            find(tier)

    def test_behind_a_mirrors_path_a_next_page_at_the_hub_itself_is_asked_of_the_mirror_and_no_token_leaves(
        self,
    ) -> None:
        server = HubServer({"org/name": Repo(FILES)}, {TOKEN: frozenset()}, page_entries=2, base="/mirror/hub")
        with server as hub, hub_with(FILES) as elsewhere, tier_of(hub, token=TOKEN) as tier:
            path = f"/api/models/org/name/tree/{hub.repos['org/name'].commit}?recursive=true&cursor=2"
            hub.faults.add(Headers({"Link": f'<{elsewhere.url}{path}>; rel="next"'}), path=TREE)
            hub.faults.add(Headers({"Link": ""}), path=TREE, skip=2, times=None)
            find(tier)
            assert not elsewhere.requests
            assert all(request.path.startswith("/mirror/hub/") for request in hub.requests)

    def test_a_renamed_repo_is_found_where_the_hub_redirects_to(self, hub: HubServer, tier: HubTier) -> None:
        hub.faults.add(Redirect("/api/models/org/name/revision/main"), path="*/org/old/revision/*")
        assert tier.find_commit("org/old", None) == hub.repos["org/name"].commit

    def test_it_is_anonymous_unless_told_otherwise_and_says_who_it_is(self, hub: HubServer, tier: HubTier) -> None:
        find(tier)
        assert not any("authorization" in request.headers for request in hub.requests)
        assert all(request.headers["user-agent"].startswith("fastload/") for request in hub.requests)

    def test_the_environment_decides_nothing(self, tier: HubTier, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HF_ENDPOINT"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert find(tier).files

    def test_importing_it_imports_no_client(self) -> None:
        code = "import sys, fastload._store.hub.tier; sys.exit(bool({'huggingface_hub', 'urllib3'} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestWhatIsNotThere:
    """A miss is no error."""

    @pytest.mark.parametrize(("repo", "revision"), [("org/other", None), ("org/name", "v9"), ("org/name", "0" * 40)])
    def test_it_is_a_miss(self, tier: HubTier, repo: str, revision: str | None) -> None:
        assert tier.find(repo, revision) is None

    def test_so_is_what_the_hub_hides_from_who_is_anonymous(self, hub: HubServer, tier: HubTier) -> None:
        hub.faults.add(Refuse(401, {"X-Error-Code": "RepoNotFound"}))
        assert tier.find("org/name", None) is None
        assert len(hub.requests) == 1

    def test_so_is_a_page_that_a_mirror_does_not_have(self, hub: HubServer, tier: HubTier) -> None:
        hub.faults.add(Refuse(404, body=b"<html>"))
        assert tier.find("org/name", None) is None


class TestWhoMayNot:
    """Errors of access, and where the token goes."""

    @pytest.mark.parametrize(
        ("token", "status", "code", "says"),
        [
            ("", 401, "GatedRepo", "the model is gated, and no token was sent"),
            ("", 401, "", "no token was sent"),
            ("", 403, "", "no token was sent"),
            (TOKEN, 401, "", "the token that was sent is refused"),
            (TOKEN, 403, "GatedRepo", "the model is gated, and the token that was sent has no access"),
            (TOKEN, 403, "", "the token that was sent has no access"),
        ],
    )
    def test_the_error_says_what_was_sent_and_where_to_go(
        self, hub: HubServer, token: str, status: int, code: str, says: str
    ) -> None:
        hub.faults.add(Refuse(status, {"X-Error-Code": code, "X-Error-Message": f"bad {TOKEN}"}))
        with tier_of(hub, token=token) as tier, pytest.raises(AuthError, match=says) as caught:
            tier.find("org/name", None)
        assert f"{hub.url}/org/name" in str(caught.value)
        assert TOKEN not in str(caught.value) + repr(caught.value) + repr(tier) + str(caught.value.to_dict())
        assert len(hub.requests) == 1  # to ask again would not help

    def test_a_disabled_repo(self, hub: HubServer, tier: HubTier) -> None:
        hub.faults.add(Refuse(403, {"X-Error-Message": "Access to this resource is disabled."}))
        with pytest.raises(AuthError, match="disabled this repository"):
            find(tier)

    def test_a_token_the_hub_does_not_know(self, hub: HubServer) -> None:
        with tier_of(hub, token=TOKEN) as tier, pytest.raises(AuthError, match="refused"):
            find(tier)

    def test_a_private_repo_is_found_with_its_token(self) -> None:
        repos = {"org/name": Repo(FILES, is_private=True)}
        with HubServer(repos, {TOKEN: frozenset({"org/name"})}) as hub:
            with tier_of(hub, token=TOKEN) as tier:
                assert find(tier).files
            with tier_of(hub) as tier:
                assert tier.find("org/name", None) is None

    def test_the_token_is_in_no_text(self) -> None:
        access = HubAccess(token=TOKEN, https_proxy=f"http://me:{TOKEN}@proxy:1")
        assert TOKEN not in repr(access) + repr(HubTier(access))

    def test_another_host_gets_no_token(self, hub: HubServer) -> None:
        with hub_with(FILES) as other, tier_of(hub, token=TOKEN) as tier:
            hub.faults.add(Redirect(f"{other.url}/api/models/org/name/revision/main"))
            assert tier.find_commit("org/name", None) == other.repos["org/name"].commit
            assert "authorization" in hub.requests[0].headers
            assert "authorization" not in other.requests[0].headers

    @pytest.mark.parametrize("name", ["\x7f", "\x85", "\x9b2J", "a\x7fb?signed=1"])
    def test_where_a_redirect_leads_is_shown_escaped(self, hub: HubServer, name: str) -> None:
        hub.faults.add(Redirect(f"http://127.0.0.1:1/{name}"), times=None)
        with tier_of(hub) as tier, pytest.raises(NetworkError) as refusal:
            tier.find_commit("org/name", None)
        assert str(refusal.value).isprintable()
        assert "127.0.0.1:1/" in str(refusal.value)


class TestTheTokenThatHuggingfaceFinds:
    """``token=None``."""

    def sent(self, hub: HubServer) -> str | None:
        with HubTier(HubAccess(endpoint=hub.url, patience=HURRIED)) as tier:
            hub.tokens = {TOKEN: frozenset()}
            find(tier)
        return hub.requests[-1].headers.get("authorization")

    def test_is_sent(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
        assert self.sent(hub) == f"Bearer {TOKEN}"

    def test_is_not_sent_where_the_user_forbids_it(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        assert self.sent(hub) is None

    @pytest.mark.parametrize("kind", ["HTTPError", "OIDCError", "LocalTokenNotFoundError"])
    def test_may_fail_to_be_renewed(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        from huggingface_hub import errors

        if not hasattr(errors, kind):
            pytest.skip("not in this version")

        def fail() -> str:
            raise getattr(errors, kind)(TOKEN)

        monkeypatch.setattr("huggingface_hub.get_token", fail)
        with pytest.raises(HubError, match="could not be read or renewed") as caught:
            self.sent(hub)
        assert TOKEN not in str(caught.value)

    def test_that_cannot_be_a_header_is_refused_without_being_shown(self, hub: HubServer) -> None:
        with tier_of(hub, token=f"{TOKEN}\nX: y") as tier, pytest.raises(UsageError) as caught:
            find(tier)
        assert TOKEN not in str(caught.value)


FAULTS: dict[str, Fault] = {
    "hung up at once": Cut(0),
    "hung up in the middle": Cut(20),
    "silent": Stall(-1, 20.0),
    "silent in the middle": Stall(20, 20.0),
    "too many requests": Refuse(429),
    "server error": Refuse(500),
    "bad gateway": Refuse(502, body=b"<html>"),
    "captive portal": PORTAL,
    "half of the answer": Body(b'{"sha":'),
    "no commit and no list": Body(b'{"id": "org/name"}'),
    "a commit that is none": Body(b'{"sha": "main"}'),
    "redirected to nowhere": Redirect("ftp://x"),
    "redirected to what is no address": Redirect("http://["),
    "compressed": Headers({"Content-Encoding": "gzip"}),
}


class TestWhatPasses:
    """Faults that do not last, and that do."""

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    @pytest.mark.parametrize("path", [INFO, TREE])
    def test_it_is_waited_for(self, hub: HubServer, fault: Fault, path: str) -> None:
        hub.faults.add(fault, path=path)
        with tier_of(hub, patience=patience_with(fault)) as tier:
            assert len(find(tier).files) == len(FILES)
        assert len(hub.requests) == 3

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    @pytest.mark.parametrize("path", [INFO, TREE])
    def test_but_not_for_ever(self, hub: HubServer, fault: Fault, path: str) -> None:
        hub.faults.add(fault, path=path, times=None)
        patience = replace(patience_with(fault), attempts=2)
        with tier_of(hub, patience=patience) as tier, pytest.raises(NetworkError, match="2 times in a row") as caught:
            find(tier)
        assert caught.value.url.startswith(hub.url)
        assert len(hub.requests) == (2 if path == INFO else 3)

    def test_a_portal_is_named(self, hub: HubServer, tier: HubTier) -> None:
        hub.faults.add(PORTAL, times=None)
        with pytest.raises(NetworkError, match="captive portal"):
            find(tier)

    def test_a_hub_that_is_not_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        access = HubAccess(endpoint=f"http://127.0.0.1:{port}", token="", patience=HURRIED)
        with HubTier(access) as tier, pytest.raises(NetworkError, match="Connection refused"):
            find(tier)

    @pytest.mark.parametrize("handled", [ValueError("elsewhere"), FileNotFoundError(2, "elsewhere")])
    def test_what_a_caller_is_handling_meanwhile_is_not_the_cause(self, handled: Exception) -> None:
        """Who looks elsewhere first asks the hub in an ``except`` clause, and Python chains that error on."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        access = HubAccess(endpoint=f"http://127.0.0.1:{port}", token="", patience=HURRIED)
        try:
            raise handled
        except type(handled):
            with HubTier(access) as tier, pytest.raises(NetworkError, match="Connection refused"):
                find(tier)

    def test_a_name_that_nobody_knows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        access = HubAccess(endpoint="http://hub.invalid", token="", patience=HURRIED)
        with HubTier(access) as tier, pytest.raises(NetworkError, match="its name cannot be resolved"):
            find(tier)

    @pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=1'}])
    def test_it_waits_as_long_as_the_hub_asks(self, hub: HubServer, headers: dict[str, str]) -> None:
        hub.faults.add(Refuse(429, headers))
        with tier_of(hub, patience=replace(HURRIED, longest_pause_s=30.0)) as tier:
            start = time.monotonic()
            find(tier)
        assert 1.0 <= time.monotonic() - start < 15.0

    def test_a_date_counts_by_the_clock_that_wrote_it(self) -> None:
        """Ours may be hours off; without the server's a date says nothing."""
        date = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:30:00 GMT"}
        assert find_asked_pause(date) == 120.0
        assert find_asked_pause({**date, "Retry-After": "Wed, 21 Oct 2015 07:00:00 GMT"}) == 0.0
        assert find_asked_pause({**date, "Retry-After": "Wed, 21 Oct 2015 07:30:00"}) == 120.0, "of no zone: of theirs"
        for text in ("soon", "Wed, 21 Oct 99999999999999999999 07:30:00 GMT"):
            assert find_asked_pause({**date, "Retry-After": text}) is None
            assert find_asked_pause({**date, "Date": text}) is None
        assert find_asked_pause({"Retry-After": date["Retry-After"]}) is None

    def test_but_not_longer_than_its_patience(self, hub: HubServer, tier: HubTier) -> None:
        hub.faults.add(too_many_requests(3600))
        start = time.monotonic()
        find(tier)
        assert HURRIED.longest_pause_s <= time.monotonic() - start < 60.0

    def test_the_pauses_grow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from fastload._store.hub.retry import Attempts, TransientError

        patience = Patience(attempts=9, first_pause_s=1.0, longest_pause_s=10.0)
        attempts, failure = Attempts(patience), TransientError("u", "r")
        slept: list[float] = []
        monkeypatch.setattr(attempts._stopped, "wait", slept.append)
        for _ in range(8):
            attempts.wait_after(failure)
        assert all(longest / 2 <= s <= longest for s, longest in zip(slept, [1, 2, 4, 8, 10, 10, 10, 10], strict=True))
        with pytest.raises(NetworkError, match="9 times in a row"):
            attempts.wait_after(failure)

    def test_other_statuses_are_said_at_once(self, hub: HubServer, tier: HubTier) -> None:
        hub.faults.add(Refuse(418))
        with pytest.raises(HubError, match="status 418"):
            find(tier)
        assert len(hub.requests) == 1

    def test_an_answer_without_end_is_cut(self, hub: HubServer, tier: HubTier, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fastload._store.hub.tier._MAX_PAGE_BYTES", 1000)
        hub.faults.add(Body(b" " * 2000 + b"[]"), path=TREE)
        with pytest.raises(NetworkError, match="more than 1,000 bytes"):
            find(tier)

    @pytest.mark.parametrize("piece", [b"[],", b"{},", b"1,", b'{"a":' * 90 + b"0" + b"}" * 90 + b","])
    def test_an_answer_full_of_values_that_no_listing_needs_is_not_parsed(
        self, hub: HubServer, tier: HubTier, piece: bytes
    ) -> None:
        hub.faults.add(Body(b"[" + piece * ((1 << 20) // len(piece)) + b"0]"), path=TREE, times=None)
        with pytest.raises(NetworkError, match=r"more than [0-9,]+ JSON values"):
            find(tier)

    def test_the_densest_listing_is_no_such_flood(self) -> None:
        files = {f"{number:x}": b"" for number in range(4_000)}
        with HubServer({"org/name": Repo(files)}, page_entries=len(files)) as hub, tier_of(hub) as tier:
            assert len(find(tier).files) == len(files)

    def test_an_answer_that_drips_is_asked_for_again(self, hub: HubServer) -> None:
        hub.faults.add(Drip(1, 0.02), path=TREE)
        patience = replace(HURRIED, floor_bytes_per_s=1000, floor_window_s=0.2)
        with tier_of(hub, patience=patience) as tier:
            assert find(tier).files
        assert len(hub.asked(path="/tree/")) == 2

    @pytest.mark.parametrize("link", ["http://[", "ftp://x"])
    def test_a_next_page_that_is_nowhere(self, hub: HubServer, tier: HubTier, link: str) -> None:
        hub.faults.add(Headers({"Link": f'<{link}>; rel="next"'}), path=TREE, times=None)
        with pytest.raises(NetworkError, match="next page"):
            find(tier)

    def test_redirects_in_a_circle(self, hub: HubServer, tier: HubTier) -> None:
        hub.faults.add(Redirect(f"{hub.url}/api/models/org/name/revision/main"), times=None)
        with pytest.raises(NetworkError, match="redirected more than 10 times"):
            find(tier)
        assert len(hub.requests) == 11


@pytest.mark.parametrize(
    "endpoint", ["", "hub", "ftp://x", "http://", "http://x:port", f"https://me:{TOKEN}@x", "http://x\n"]
)
def test_an_endpoint_that_cannot_be_one(endpoint: str) -> None:
    with pytest.raises(UsageError) as caught:
        HubTier(HubAccess(endpoint=endpoint))
    assert TOKEN not in str(caught.value)


def entry(path: object, **changed: object) -> dict[str, object]:
    return {"type": "file", "path": path, "size": 1, "oid": SHA1, **changed}


class TestListings:
    """Paths from strangers."""

    @pytest.mark.parametrize(
        "bad",
        [
            {"type": "file"},
            {"type": "link", "path": "a", "size": 1, "oid": SHA1},
            "a",
            None,
            entry("a", size=-1),
            entry("a", size="1"),
            entry("a", size=True),
            entry("a", size=1 << 63),
            entry("a", size=1 << 44),
            entry("a", size=1.5),
            entry("a", oid="main"),
            entry("a", oid=None),
            entry("a", lfs={"oid": SHA1, "size": 1}),
            entry("a", lfs={"oid": "x" * 64, "size": 1}),
            entry("a", lfs={"oid": "a" * 64}),
            *map(
                entry,
                ("", "/etc/passwd", "../a", "a/../../b", "a//b", "a/", "./a", "a\\b", "a\nb", "a\x1b[2J", 7, None),
            ),
            entry("a" * 256),
            entry("a/" * 2000 + "a"),
            entry(".fastload/manifests/x.json"),
        ],
        ids=repr,
    )
    def test_what_cannot_be_a_file_is_refused(self, hub: HubServer, tier: HubTier, bad: object) -> None:
        hub.faults.add(Body(json.dumps([entry("good"), bad]).encode()), path=TREE)
        with pytest.raises(FormatError) as caught:
            find(tier)
        assert str(caught.value).isprintable()
        assert caught.value.path == f"org/name@{hub.repos['org/name'].commit}"

    def test_two_files_at_one_place(self) -> None:
        for paths in (["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]):
            with pytest.raises(FormatError):
                parse_tree(map(entry, paths), "org/name@x")

    @given(st.lists(st.text() | st.from_regex(r"[./a\\\0]{0,9}"), max_size=3))
    def test_no_listing_leads_out_of_its_folder(self, paths: list[str]) -> None:
        try:
            files = parse_tree(map(entry, paths), "org/name@x")
        except FormatError:
            return
        for file in files:
            place = os.path.normpath(os.path.join("/root/snapshot", file.path))
            assert place == f"/root/snapshot/{file.path}"
            assert "\\" not in file.path and all(ord(c) >= 32 for c in file.path)

    @given(st.lists(st.from_regex(r"[a-z][\w.-]{0,9}(/[a-z][\w.-]{0,9}){0,3}", fullmatch=True), max_size=5))
    def test_plain_paths_are_taken(self, paths: list[str]) -> None:
        leaves = [path for path in set(paths) if not any(other.startswith(f"{path}/") for other in paths)]
        assert [file.path for file in parse_tree(map(entry, leaves), "x")] == sorted(leaves)

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
        st.sampled_from(["type", "path", "size", "oid", "lfs"]) | st.text(), x)))  # fmt: skip
    def test_any_json_is_a_listing_or_an_error_of_ours(self, value: object) -> None:
        try:
            parse_tree([value, entry("x", lfs=value)], "org/name@x")
        except FastloadError:
            return


def test_patience_only_ever_gets_shorter() -> None:
    assert Patience().within(3).within(10) == Patience().within(3)
    assert Patience().within(None) == Patience()
