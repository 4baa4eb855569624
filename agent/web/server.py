"""Run the web application in a thread, with a start that reports and a stop that drains."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from agent.errors import AgentError
from agent.settings_base import TlsSettings

START_TIMEOUT_S = 15.0
DRAIN_TIMEOUT_S = 5

log = structlog.get_logger(__name__)


class WebServerError(AgentError):
    """The page cannot be served."""

    permanent = True


class WebServer:
    """uvicorn in a thread; `port` is known after `start`, also when 0 was asked for."""

    def __init__(self, app: FastAPI, host: str, port: int, tls: TlsSettings | None = None) -> None:
        self._app = app
        self.host = host
        self.port = port
        config = uvicorn.Config(
            app,
            # Query strings may hold what a reader searched for, so there is no access log.
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # whose word counts is decided in `agent.web.access`
            **_certificate(tls),
            lifespan="off",
            ws="websockets-sansio",
            timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind and serve; returns when requests are answered.

        Raises:
            WebServerError: the address is in use or not ours, or the server did not come up.
        """
        listener = _bind(self.host, self.port)
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="web", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise WebServerError("the web server did not start; see the log for the cause")
            time.sleep(0.01)
        log.info("web_started", host=self.host, port=self.port)

    def stop(self) -> None:
        """Finish the requests under way (at most a few seconds), then close."""
        if self._thread is None:
            return
        changes = getattr(self._app.state, "changes", None)
        if changes is not None:  # a page listens for ever; do not wait for it
            changes.close()
        self._server.should_exit = True
        self._thread.join(DRAIN_TIMEOUT_S + 5)
        self._thread = None
        log.info("web_stopped")


def _certificate(tls: TlsSettings | None) -> dict[str, Any]:
    """TLS 1.2 and newer, as Python's defaults have it."""
    if tls is None or tls.certificate is None or tls.key is None:
        return {}
    for path in (tls.certificate, tls.key):
        if not path.is_file():
            raise WebServerError(f"web.tls: {path.name} is not a file; give certificate and key")
    return {
        "ssl_certfile": str(tls.certificate),
        "ssl_keyfile": str(tls.key),
        "ssl_ca_certs": str(tls.ca) if tls.ca else None,
        "ssl_cert_reqs": ssl.CERT_REQUIRED if tls.ca else ssl.CERT_NONE,
    }


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise WebServerError(
            f"web.host {host}, web.port {port}: {error.strerror}; "
            "choose another port or stop what uses it"
        ) from error
    return listener
