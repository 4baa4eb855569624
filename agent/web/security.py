"""The guards of the web application: headers, Host, body size, same origin, JSON only."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.access.address import is_loopback

MAX_BODY_BYTES = 64 * 1024

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Patient data must not stay in a browser's cache.
    "Cache-Control": "no-store",
}

STRICT_TRANSPORT = {"Strict-Transport-Security": "max-age=31536000"}


class Guard:
    """ASGI middleware: refuses foreign Host headers and large bodies, adds the headers to all.

    A page on any site can make a browser ask 127.0.0.1, and with DNS rebinding read the answer; the
    Host header then still names that site. So an application bound to loopback only answers to
    loopback names.
    """

    def __init__(
        self,
        app: ASGIApp,
        bound_host: str,
        is_upload: Callable[[str, str], bool] = lambda _method, _path: False,
        public_url: str = "",
        tls: bool = False,
    ) -> None:
        self._app = app
        self._is_upload = is_upload
        self._loopback_only = is_loopback(bound_host)
        self._public_name = hostname(urlsplit(public_url).netloc)
        self._headers = {**SECURITY_HEADERS, **(STRICT_TRANSPORT if tls else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] == "websocket" and self._is_foreign(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _is_foreign(self, headers: Headers) -> bool:
        """Whether the request names another host; a proxy in front passes its public name."""
        name = hostname(headers.get("host", ""))
        ours = is_loopback(name) or (bool(name) and name == self._public_name)
        return self._loopback_only and not ours

    def _refusal(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        if self._is_foreign(headers):
            return _refuse(421, "this server answers to 127.0.0.1 and localhost only")
        if method in {"GET", "HEAD", "OPTIONS"} or self._is_upload(method, path):
            return None
        length = headers.get("content-length")
        if length is None or not length.isdecimal():
            return _refuse(411, "a request that changes something needs a Content-Length")
        if int(length) > MAX_BODY_BYTES:
            return _refuse(413, f"at most {MAX_BODY_BYTES} bytes")
        return None


def require_own_json(request: Request) -> None:
    """Refuse writes that another site's page could have caused (no token needed).

    Forms cannot send application/json, and a script of another origin cannot without a preflight,
    which nobody here answers. Browsers also say where a request comes from; it must be us.
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, "send Content-Type: application/json")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "this request comes from another site's page")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise HTTPException(403, "this request comes from another site's page")


def hostname(host_header: str) -> str:
    """The name in a Host header, without its port."""
    return urlsplit(f"//{host_header}").hostname or ""


def _refuse(status: int, why: str) -> JSONResponse:
    return JSONResponse({"detail": why}, status)
