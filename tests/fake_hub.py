"""The part of the Hub's HTTP API that huggingface_hub uses to read a repository and to commit to one, on loopback."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "a" * 20
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PREFIX = {"models": "", "datasets": "datasets/"}


class Hub:
    """repos: {"models/owner/name": {file: bytes}}. refused: status with which every write is answered, if any."""

    def __init__(self):
        self.repos, self.stored, self.asked, self.refused = {}, {}, [], 0
        self.private = {}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, value=None, status=200, headers=(), body=None):
        data = json.dumps(value).encode() if body is None else body
        self.send_response(status)
        for name, text in (("Content-Length", str(len(data))), *headers):
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, code):
        self.answer({"error": code}, 404, [("X-Error-Code", code), ("X-Error-Message", code)])

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/.*)?", path):
            files = self.hub.repos.get(f"{found[1]}/{found[2]}")
            if files is None:
                return self.missing("RepoNotFound")
            if (found[3] or "").startswith("/tree/"):
                return self.answer([entry(name, data) for name, data in files.items()])
            names = [{"rfilename": name} for name in files]
            return self.answer({"id": found[2], "sha": COMMIT, "siblings": names, "private": False})
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            files = self.hub.repos.get(f"{'datasets' if found[1] else 'models'}/{found[2]}")
            if files is None:
                return self.missing("RepoNotFound")
            if found[3] not in files:
                return self.missing("EntryNotFound")
            data = files[found[3]]
            return self.answer(body=data, headers=[("ETag", f'"{oid(data)}"'), ("X-Repo-Commit", COMMIT)])
        return self.missing("NotFound")

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.refused:
            return self.answer({"error": "no"}, self.hub.refused)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "/validate-yaml" not in path:
            return self.answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('type', 'model')}s/{asked.get('organization', 'me')}/{asked['name']}"
            self.hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
            self.hub.repos.setdefault(name, {})
            return self.answer({"url": f"http://{self.headers['Host']}/{name.partition('/')[2]}"})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/preupload/main", path):
            asked = json.loads(body)["files"]
            return self.answer({"files": [entry_mode(file) for file in asked]})
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            asked = json.loads(body)["objects"]
            return self.answer({"transfer": "basic", "objects": [self.place(one) for one in asked]})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/commit/main", path):
            files = self.hub.repos[f"{found[1]}/{found[2]}"]
            for row in map(json.loads, body.splitlines()):
                value = row["value"]
                if row["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif row["key"] == "lfsFile":
                    files[value["path"]] = self.hub.stored[value["oid"]]
            url = f"http://{self.headers['Host']}/{found[2]}/commit/{COMMIT}"
            return self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})
        return self.missing("NotFound")

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == name
        self.hub.stored[name] = data
        self.answer({})

    def place(self, asked):
        upload = {"href": f"http://{self.headers['Host']}/store/{asked['oid']}"}
        return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": upload}}


def oid(data):
    return hashlib.sha1(data).hexdigest()


def entry(name, data):
    return {"type": "file", "path": name, "size": len(data), "oid": oid(data)}


def entry_mode(asked):
    mode = "lfs" if asked["path"].endswith((".safetensors", ".parquet", ".png")) else "regular"
    return {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}


@contextmanager
def running():
    """(the Hub, environment of a process that uses it)."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        yield hub, {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    finally:
        server.shutdown()
        server.server_close()
