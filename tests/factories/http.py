"""A small HTTP server on an ephemeral port whose every answer is a function's result.

with http.serving(lambda request: http.Answer(503)) as server:
    DicomWebPeer(server.url)
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What it gets; `content` is sent as JSON unless it is bytes."""

    status: int = 200
    content: Any = b""
    content_type: str = "application/dicom+json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """A running server and everything it was asked."""

    url: str
    requests: list[Request] = field(default_factory=list)


@contextmanager
def serving(
    answer: Callable[[Request], Answer], tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Serve on 127.0.0.1 for the length of a block, over https with a TLS context."""
    state = Server(url="")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        do_HEAD = do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815 - named by the library

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = _chunks(self.rfile) if _is_chunked(self.headers) else self.rfile.read(length)
            request = Request(self.command, self.path, dict(self.headers), body)
            state.requests.append(request)
            reply = answer(request)
            content = reply.content
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(content)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls else "http"
    state.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _is_chunked(headers: Any) -> bool:
    return "chunked" in (headers.get("Transfer-Encoding") or "").lower()


def _chunks(stream: Any) -> bytes:
    body = b""
    while size := int(stream.readline(), 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body
