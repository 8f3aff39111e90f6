"""A hub on this machine: the few requests of the hub's protocol that down- and uploads make."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" * 6 + "c0ff"
_LARGE = (".safetensors", ".pth")


class HubServer:
    """Serves the files of a folder as one model repository.

    Attributes:
      repo: owner/name.
      folder: its content.
      url: what HF_ENDPOINT must be.
      requests: (method, path, Range header or None) of every request.
      cut: {path: bytes after which its connection breaks}, each once.
      stall: {path: bytes after which nothing more is sent}, until `close`.
      stalled: set once that has happened.
      wrong: paths whose bytes are changed on the way.
      withheld: paths that are listed but not given.
      refuses: HTTP status with which writing is answered, or None.
      breaks: whether the connection ends inside a large file's upload.
      commits: messages of the commits that came.
    """

    def __init__(self, repo: str, folder: Path):
        self.repo, self.folder = repo, folder
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.stalled, self._closing = threading.Event(), threading.Event()
        self.wrong: set[str] = set()
        self.withheld: set[str] = set()
        self.refuses: int | None = None
        self.breaks = False
        self.commits: list[str] = []
        self.large: dict[str, bytes] = {}
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def files(self) -> list[str]:
        """Every path of the repository."""
        found = [f for f in self.folder.rglob("*") if f.is_file()]
        return sorted(f.relative_to(self.folder).as_posix() for f in found)

    def downloads(self) -> list[str]:
        """Paths whose bytes were asked for, in order."""
        marker = f"/{self.repo}/resolve/{COMMIT}/"
        return [p.removeprefix(marker) for m, p, _ in self.requests if m == "GET" and marker in p]


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def do_POST(self) -> None:
        hub, path = self.server_hub, self.path.split("?")[0]
        hub.requests.append((self.command, path, None))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if hub.refuses is not None:
            return self._json({"error": "refused"}, hub.refuses)
        if path == "/api/repos/create":
            return self._json({"url": f"{hub.url}/{hub.repo}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == f"/api/models/{hub.repo}/preupload/main":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if path == f"/{hub.repo}.git/info/lfs/objects/batch":
            objects = [
                {**o, "actions": {"upload": {"href": f"{hub.url}/large/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if path == f"/api/models/{hub.repo}/commit/main":
            return self._commit([json.loads(line) for line in body.splitlines()])
        self._error(404, "RepoNotFound")

    def do_PUT(self) -> None:
        hub, oid = self.server_hub, self.path.rpartition("/")[2]
        hub.requests.append((self.command, self.path, None))
        if hub.breaks:
            self.close_connection = True
            return self.connection.close()
        hub.large[oid] = self.rfile.read(int(self.headers["Content-Length"]))
        self._json({})

    def _commit(self, lines: list[dict]) -> None:
        hub = self.server_hub
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                hub.commits.append(value["summary"])
                continue
            place = hub.folder / value["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            if line["key"] == "lfsFile":
                place.write_bytes(hub.large[value["oid"]])
            else:
                place.write_bytes(base64.b64decode(value["content"]))
        url = f"{hub.url}/{hub.repo}/commit/{COMMIT}"
        self._json({"success": True, "commitOid": COMMIT, "commitUrl": url})

    def _answer(self, with_body: bool) -> None:
        hub, path = self.server_hub, self.path.split("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = info or tree or file
        if found is None or found[1] != hub.repo:
            return self._error(404, "RepoNotFound")
        if found[2] not in (None, "main", "v1", COMMIT):
            return self._error(404, "RevisionNotFound")
        if info:
            return self._json({"id": hub.repo, "sha": COMMIT, "siblings": self._siblings()})
        if tree:
            return self._json([_entry(hub.folder / p, p) for p in hub.files()])
        if found[3] not in hub.files() or found[3] in hub.withheld:
            return self._error(404, "EntryNotFound")
        self._file(found[3], with_body)

    def _siblings(self) -> list[dict]:
        hub = self.server_hub
        entries = [_entry(hub.folder / path, path) for path in hub.files()]
        siblings = []
        for entry in entries:
            sibling = {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
            if "lfs" in entry:
                sibling["lfs"] = {
                    "sha256": entry["lfs"]["oid"],
                    "size": entry["size"],
                    "pointerSize": 130,
                }
            siblings.append(sibling)
        return siblings

    def _file(self, path: str, with_body: bool) -> None:
        hub = self.server_hub
        content = (hub.folder / path).read_bytes()
        entry = _entry(hub.folder / path, path)
        checksum = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        if path in hub.wrong:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and with_body:
            start = int(asked[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{checksum}"')
        self.send_header("X-Linked-Etag", f'"{checksum}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not with_body:
            return
        limit = hub.cut.pop(path, hub.stall.get(path))
        if limit is not None:
            self.wfile.write(content[start : start + limit])
            self.wfile.flush()
            if path in hub.stall:
                hub.stalled.set()
                hub._closing.wait(30)
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _json(self, content, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(file: Path, path: str) -> dict:
    """A file as the hub's tree lists it; large ones by their sha256, small ones by git's sha1."""
    content = file.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if path.endswith(_LARGE):
        large = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": large, "size": len(content), "pointerSize": 130}
    return entry
