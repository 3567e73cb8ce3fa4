"""A small npm registry on loopback: for installs that take a second, and refusals to order."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Registry:
    """Knows the package ``openclaw`` in the releases given, each with its dependencies. A context manager."""

    def __init__(self, releases: Mapping[str, Mapping[str, str]]) -> None:
        self.refuse_with: int | None = None
        self.asked: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.tarballs = {
            f"/openclaw-{release}.tgz": _tarball(release, needs) for release, needs in releases.items()
        }
        versions = {release: self._manifest(release, needs) for release, needs in releases.items()}
        self.document = {"name": "openclaw", "dist-tags": {"latest": max(releases)}, "versions": versions}
        _Handler.registry = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def _manifest(self, release: str, needs: Mapping[str, str]) -> dict[str, Any]:
        path = f"/openclaw-{release}.tgz"
        digest = base64.b64encode(hashlib.sha512(self.tarballs[path]).digest()).decode()
        dist = {"tarball": self.url + path, "integrity": f"sha512-{digest}"}
        return {"name": "openclaw", "version": release, "dependencies": dict(needs), "dist": dist}

    def wait_until_asked_for(self, path: str, timeout_s: float = 30.0) -> None:
        with _Handler.changed:
            assert _Handler.changed.wait_for(lambda: path in self.asked, timeout_s), (
                f"{path} was not asked for"
            )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    changed = threading.Condition()

    def do_GET(self) -> None:
        registry = self.registry
        with self.changed:
            registry.asked.append(self.path)
            self.changed.notify_all()
        if registry.refuse_with is not None:
            self._answer(registry.refuse_with, b"{}")
        elif self.path == "/openclaw":
            self._answer(200, json.dumps(registry.document).encode())
        elif self.path in registry.tarballs:
            registry.hold.wait(60)
            self._answer(200, registry.tarballs[self.path])
        else:
            self._answer(404, b"{}")

    def _answer(self, status: int, content: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            pass  # npm was killed meanwhile

    def log_message(self, format: str, *args: object) -> None:
        pass


def _tarball(release: str, needs: Mapping[str, str]) -> bytes:
    manifest = {"name": "openclaw", "version": release, "dependencies": dict(needs)}
    files = {
        "package.json": json.dumps(manifest),
        "openclaw.mjs": "console.log('no gateway'); process.exit(3);",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
    return buffer.getvalue()
