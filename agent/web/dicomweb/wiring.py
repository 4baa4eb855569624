"""How DICOMweb is put into the application: routes, errors, and other origins' pages."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.foundation import Foundation
from agent.web.dicomweb import routes
from agent.web.dicomweb.catalog import DicomWeb
from dicom_nodes.received import StoreHandler
from dicom_nodes.web.errors import WebRequestError


def install(app: FastAPI, web: DicomWeb) -> None:
    """Add ``/dicom-web``; before the guard, which stays outermost."""
    app.include_router(routes.router(web))

    @app.exception_handler(WebRequestError)
    def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, WebRequestError)  # noqa: S101 - Starlette's type is wider
        return JSONResponse({"detail": str(error)}, error.status)

    if web.settings.cors_origins:
        app.add_middleware(Cors, origins=web.settings.cors_origins)


def of(base: Foundation, intake: StoreHandler) -> DicomWeb | None:
    """What the configuration asks for; None = nothing."""
    settings = base.config.dicomweb
    if not settings.enabled:
        return None
    return DicomWeb(
        settings=settings,
        priority=base.config.priority,
        sessions=base.sessions,
        spool=base.spool.root,
        results=base.results,
        intake=intake,
        public_url=base.config.web.public_url,
        clock=base.clock,
    )


class Cors:
    """ASGI middleware: pages of listed origins may ask DICOMweb, and nothing else."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            self._shared,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Accept", "Authorization", "Content-Type", "Range"],
            expose_headers=["Content-Type", "Retry-After", "Warning"],
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with the headers of CORS below ``/dicom-web``."""
        is_ours = scope["type"] == "http" and scope["path"].startswith(f"{routes.ROOT}/")
        await (self._cors if is_ours else self._app)(scope, receive, send)

    async def _shared(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A viewer's page shows thumbnails as plain images, which CORS does not speak of."""

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                message["headers"] = [
                    *message["headers"],
                    (b"cross-origin-resource-policy", b"cross-origin"),
                ]
            await send(message)

        await self._app(scope, receive, send_shared)
