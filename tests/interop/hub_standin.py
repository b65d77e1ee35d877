"""A stand-in of the Hugging Face hub on this machine: the part of its HTTP API that a push uses.

What arrives is kept as the hub would: one commit holds all files or none, large ones come by LFS
and are checked against their digest, a README's front matter is read as YAML.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import yaml

TOKEN = "hf_of_this_test"
LFS = (".gguf", ".safetensors", ".pt")


class Repo:
    def __init__(self, private: bool, sdk: str | None = None, files: dict | None = None):
        self.private, self.sdk, self.commits = private, sdk, 0
        self.files: dict[str, bytes] = {".gitattributes": b"", **(files or {})}


class Hub:
    """The state: repositories by `models/USER/NAME`, LFS objects, and every request.

    `refusals`: status by a part of `METHOD path`, for what the hub refuses.
    """

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refusals: dict[str, int] = {}
        self.url = ""

    def sent(self, repo: str) -> dict[str, bytes]:
        """The files of a repository without the hub's own."""
        return {k: v for k, v in self.repos[repo].files.items() if k != ".gitattributes"}


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self._body())

    do_PUT = do_POST

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _handle(self, body: bytes) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(asked := f"{self.command} {path}")
        for part, status in self.hub.refusals.items():
            if part in asked:
                return self._answer(status, {"error": "not with this account"})
        # The place where LFS objects go is another machine's, which no token is for.
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}" or path.startswith("/lfs/")
        if not known:
            return self._answer(401, {"error": "Invalid username or password."})
        for pattern, method in ROUTES.items():
            if match := re.fullmatch(pattern, asked):
                return method(self, body, **match.groupdict())
        return self._answer(404, {"error": f"the stand-in has no {asked}"})

    def _answer(self, status: int, value: Any, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, content in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), content)
        self.end_headers()
        self.wfile.write(data)

    def whoami(self, body: bytes) -> None:
        self._answer(200, {"type": "user", "name": "ada", "orgs": []})

    def info(self, body: bytes, kind: str, repo: str) -> None:
        found = self.hub.repos.get(f"{kind}/{repo}")
        if found is None:
            return self._answer(404, {"error": "not found"}, X_Error_Code="RepoNotFound")
        names = [{"rfilename": name} for name in found.files]
        self._answer(200, {"id": repo, "private": found.private, "siblings": names,
                           "sha": f"{found.commits:040x}", "tags": [], "downloads": 0,
                           "likes": 0})  # fmt: skip

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        kind = f"{asked.get('type') or 'model'}s"
        repo = f"{asked['organization']}/{asked['name']}"
        if f"{kind}/{repo}" in self.hub.repos:
            return self._answer(409, {"error": "You already created this repo", "url": repo})
        private = asked.get("visibility") == "private"
        self.hub.repos[f"{kind}/{repo}"] = Repo(private, asked.get("sdk"))
        prefix = "" if kind == "models" else f"{kind}/"
        self._answer(200, {"url": f"{self.hub.url}/{prefix}{repo}", "name": repo})

    def validate(self, body: bytes) -> None:
        front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
        errors = [] if "license" in front else [{"message": "no license"}]
        self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, kind: str, repo: str) -> None:
        there, found = self.hub.repos[f"{kind}/{repo}"].files, []
        for name in (file["path"] for file in json.loads(body)["files"]):
            mode = "lfs" if name.endswith(LFS) else "regular"
            digest = _git_hash if mode == "regular" else lambda x: hashlib.sha256(x).hexdigest()
            oid = digest(there[name]) if name in there else None
            found.append(dict(path=name, uploadMode=mode, shouldIgnore=False, oid=oid))
        self._answer(200, {"files": found})

    def batch(self, body: bytes) -> None:
        objects = [dict(oid=x["oid"], size=x["size"]) for x in json.loads(body)["objects"]]
        for each in objects:
            if each["oid"] not in self.hub.objects:  # else there is nothing to do
                each["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}
        self._answer(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        right = hashlib.sha256(body).hexdigest() == oid
        if right:
            self.hub.objects[oid] = body
        self._answer(200 if right else 400, {})

    def commit(self, body: bytes, kind: str, repo: str) -> None:
        found = self.hub.repos[f"{kind}/{repo}"]
        new = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                new[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                new[value["path"]] = self.hub.objects[value["oid"]]
        found.files |= new
        found.commits += 1
        oid = f"{found.commits:040x}"
        self._answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid,
                           "success": True})  # fmt: skip


_REPO = r"(?P<kind>models|spaces)/(?P<repo>[^/]+/[^/]+)"
ROUTES = {
    "GET /api/whoami-v2": _Handler.whoami,
    f"GET /api/{_REPO}(/revision/main)?": _Handler.info,
    "POST /api/repos/create": _Handler.create,
    "POST /api/validate-yaml": _Handler.validate,
    f"POST /api/{_REPO}/preupload/main": _Handler.preupload,
    r"POST /(spaces/)?[^/]+/[^/]+\.git/info/lfs/objects/batch": _Handler.batch,
    "PUT /lfs/(?P<oid>[0-9a-f]+)": _Handler.put,
    f"POST /api/{_REPO}/commit/main": _Handler.commit,
}


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub at `hub.url` until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join(10)
