"""A container registry on loopback with one image, for tests of pulling: just the calls that an engine makes.

Engines take a registry at 127.0.0.0/8 without TLS.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class ImageRegistry:
    """Serves `127.0.0.1:PORT/web:1`, made of one layer. While `open` is cleared, layers are not handed out."""

    def __init__(self, layer: bytes) -> None:
        packed = gzip.compress(layer, 1, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["true"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        self.blobs = {_digest(packed): packed, _digest(config): config}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": _describe("application/vnd.docker.container.image.v1+json", config),
                "layers": [_describe("application/vnd.docker.image.rootfs.diff.tar.gzip", packed)],
            }
        ).encode()
        self.open = threading.Event()
        self.open.set()
        self.layers_asked = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.image = f"127.0.0.1:{self._server.server_port}/web:1"

    def __enter__(self) -> ImageRegistry:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()

    def find(self, path: str) -> tuple[bytes, str] | None:
        """Return what is at `path`, and its type."""
        if path == "/v2/":
            return b"{}", "application/json"
        if path.startswith("/v2/web/blobs/"):
            digest = path.rpartition("/")[2]
            if digest in self.blobs and self.blobs[digest][:2] == b"\x1f\x8b":
                self.layers_asked += 1
                self.open.wait()
            return (self.blobs[digest], "application/octet-stream") if digest in self.blobs else None
        if path in ("/v2/web/manifests/1", f"/v2/web/manifests/{_digest(self.manifest)}"):
            return self.manifest, MANIFEST_TYPE
        return None


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _describe(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


def _handler(registry: ImageRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            found = registry.find(self.path)
            unknown = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            data, kind = found or (json.dumps(unknown).encode(), "application/json")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", _digest(data))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    return Handler
