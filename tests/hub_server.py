"""A hub on this machine: a real HTTP server that speaks the protocol of huggingface.co, and goes wrong as it is told.

::

    with HubServer({"org/name": Repo({"model.safetensors": content})}) as hub:
        snapshot_download("org/name", endpoint=hub.url)
        hub.faults.add(Cut(after_bytes=1000), path="*.safetensors")
        hub.requests            # all that was asked, of the hub and of its CDN

Large files (LFS) are redirected, by signed links that expire, to a second server at 127.0.0.2: the CDN, which must
never see a token. ``hub.faults`` takes what :mod:`hub_faults` has; see also https://huggingface.co/docs/hub/api.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hub_faults import Faults, Reply
from hub_http import LoopbackServer, Request
from hub_repos import HubFile, Repo

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

__all__ = ["HubServer", "Repo", "Request"]

_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_CDN = re.compile(r"/cdn/(?P<etag>[0-9a-f]+)/.*")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_JSON = {"Content-Type": "application/json; charset=utf-8"}


@dataclass
class HubServer:
    """A hub at 127.0.0.1 and its CDN at 127.0.0.2, while the ``with`` lasts.

    Args:
        repos: what it holds, by ``org/name``.
        tokens: the tokens it knows, each with the repos it gives access to.
        has_cdn: False to give out large files itself.
        page_entries: of a tree listing, before the next page.
        link_lasts_s: how long a signed link is good.
        tls: serve https.
        base: a path that all is below, as behind a company's mirror: ``/mirror/hub``.
    """

    repos: Mapping[str, Repo]
    tokens: Mapping[str, frozenset[str]] = field(default_factory=dict)
    has_cdn: bool = True
    page_entries: int = 1000
    link_lasts_s: float = 3600.0
    tls: ssl.SSLContext | None = None
    base: str = ""
    faults: Faults = field(default_factory=Faults, init=False)
    requests: list[Request] = field(default_factory=list, init=False)
    _generation: int = field(default=0, init=False)

    def __enter__(self) -> Self:
        self._stopped = threading.Event()
        self._servers = [
            LoopbackServer(lambda request: self._answer("hub", request), self.tls, self._stopped),
            LoopbackServer(lambda request: self._answer("cdn", request), self.tls, self._stopped, "127.0.0.2"),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for server in self._servers:
            server.stop()

    @property
    def url(self) -> str:
        """What is given as ``endpoint``."""
        return self._servers[0].url + self.base

    @property
    def cdn_url(self) -> str:
        """Where the links to large files lead."""
        return self._servers[1].url

    def expire_links(self) -> None:
        """All links that were given out so far are answered with 403 from now on."""
        self._generation += 1

    def asked(self, host: str = "*", path: str = "") -> list[Request]:
        """The requests to ``host`` (``hub``, ``cdn`` or both) whose path holds ``path``, in order."""
        return [request for request in self.requests if host in {"*", request.host} and path in request.path]

    def served_bytes(self, path: str = "") -> int:
        """The bytes of bodies that were sent in answer to paths that hold ``path``."""
        return sum(request.bytes_served for request in self.asked(path=path))

    def _answer(self, host: str, request: Request) -> Reply:
        request.host = host
        self.requests.append(request)
        right = self._serve_cdn(request) if host == "cdn" else self._serve_hub(request)
        return self.faults.strike(host, request.method, request.path, right)

    def _serve_hub(self, request: Request) -> Reply:
        path = request.path.removeprefix(self.base)
        if match := _RESOLVE.fullmatch(path):
            return self._resolve(request, match["repo"], unquote(match["revision"]), unquote(match["path"]))
        if match := _API.fullmatch(path):
            return self._api(request, match["repo"], match["what"], unquote(match["revision"] or "main"))
        return _error(404, "", "Sorry, we can't find the page you are looking for.")

    def _find(self, request: Request, name: str, revision: str) -> tuple[Repo, str] | Reply:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            return _error(401, "", "Invalid credentials in Authorization header")
        repo = self.repos.get(name)
        if repo is None or (repo.is_private and name not in self.tokens.get(token, ())):
            return _error(404, "RepoNotFound", "Repository not found")
        commit = repo.find_commit(revision)
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit

    def _api(self, request: Request, name: str, what: str | None, revision: str) -> Reply:
        found = self._find(request, name, revision)
        if isinstance(found, Reply):
            return found
        repo, commit = found
        if what == "tree":
            return self._tree(request, repo.tree(commit))
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        info = {"id": name, "sha": commit, "private": repo.is_private, "gated": repo.is_gated, "siblings": siblings}
        return _json(info)

    def _tree(self, request: Request, entries: list[dict[str, object]]) -> Reply:
        start = int(parse_qs(request.query).get("cursor", ["0"])[0])
        end = start + self.page_entries
        reply = _json(entries[start:end])
        if end >= len(entries):
            return reply
        link = f"{self._servers[0].url}{request.path}?recursive=true&expand=false&cursor={end}"
        return reply.with_headers(Link=f'<{link}>; rel="next"')

    def _resolve(self, request: Request, name: str, revision: str, path: str) -> Reply:
        found = self._find(request, name, revision)
        if isinstance(found, Reply):
            return found
        repo, commit = found
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if repo.is_gated and name not in self.tokens.get(token, ()):
            return _error(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        file = repo.commits[commit].get(path)
        if file is None:
            return _error(404, "EntryNotFound", "Entry not found").with_headers(X_Repo_Commit=commit)
        if file.is_lfs and self.has_cdn:
            linked = {"X_Linked_Etag": f'"{file.etag}"', "X_Linked_Size": str(len(file.content))}
            reply = Reply(302, {"Location": self._sign(file)}).with_headers(**linked)
        else:
            reply = _content(request, file)
        return reply.with_headers(X_Repo_Commit=commit, ETag=f'"{file.etag}"')

    def _sign(self, file: HubFile) -> str:
        expires = time.time() + self.link_lasts_s
        query = f"Expires={expires:.3f}&Signature=secret{self._generation}"
        return f"{self.cdn_url}/cdn/{file.etag}/{quote(file.path)}?{query}"

    def _serve_cdn(self, request: Request) -> Reply:
        match, query = _CDN.fullmatch(request.path), parse_qs(request.query)
        is_signed = query.get("Signature") == [f"secret{self._generation}"]
        if match is None or not is_signed or time.time() > float(query["Expires"][0]):
            return Reply(
                403, {"Content-Type": "application/xml"}, memoryview(b"<Error><Code>AccessDenied</Code></Error>")
            )
        commits = (commit for repo in self.repos.values() for commit in repo.commits.values())
        file = next(file for commit in commits for file in commit.values() if file.etag == match["etag"])
        return _content(request, file).with_headers(ETag=f'"{file.etag}"')


def _content(request: Request, file: HubFile) -> Reply:
    whole, size = memoryview(file.content), len(file.content)
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None:
        return Reply(200, headers, whole, whole)
    start, end = int(match[1]), min(int(match[2] or size), size - 1) + 1
    if start >= end:
        return Reply(416, {"Content-Range": f"bytes */{size}"}, content=whole)
    return Reply(206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}, whole[start:end], whole)


def _json(value: object) -> Reply:
    return Reply(200, _JSON, memoryview(json.dumps(value).encode()))


def _error(status: int, code: str, message: str) -> Reply:
    headers = {**_JSON, "X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return Reply(status, headers, memoryview(json.dumps({"error": message}).encode()))


def split_port(url: str) -> tuple[str, int]:
    """Host and port of ``url``."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port
