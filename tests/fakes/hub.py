"""A hub on this machine with one file: ranges, answers that break off half-way, a wrong checksum."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lib_layerdiffuse.core.bases import SD_HUB
from lib_layerdiffuse.files import hub


class Hub(BaseHTTPRequestHandler):
    """Just enough of a hub: one file, ranges, and `server.broken` answers that break off half-way."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        content = self.server.content
        self.server.tokens.append(self.headers.get("Authorization"))
        if self.path != f"/{self.server.repository}/resolve/main/{self.server.file_name}":
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not with_body:
            return
        self.server.starts.append(start)
        if self.server.broken > 0:
            self.server.broken -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class HubServer(ThreadingHTTPServer):
    """The server; `starts` are the places from which the file was asked for, `tokens` what was sent for admission."""

    daemon_threads = True

    def __init__(self, file_name: str, content: bytes, repository: str):
        super().__init__(("127.0.0.1", 0), Hub)
        self.file_name, self.content, self.repository = file_name, content, repository
        self.etag, self.broken = hashlib.sha256(content).hexdigest(), 0
        self.starts, self.tokens = [], []

    @property
    def address(self) -> str:
        """What HF_ENDPOINT would be."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


@contextmanager
def serve(file_name: str, content: bytes, repository: str = SD_HUB.repository) -> Iterator[HubServer]:
    """A running hub that has one file of a repository, by default that of the layer files."""
    server = HubServer(file_name, content, repository)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def point_to(monkeypatch: pytest.MonkeyPatch, server: HubServer) -> None:
    """Let it be the hub of this test."""
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(hub, "ORIGIN", server.address)
    without_proxies(monkeypatch)


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No way around by a proxy of the environment."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
