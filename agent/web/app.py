"""The application factory: routes, templates, static files, guards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from agent.access.principal import Role
from agent.web import (
    doors,
    presentation,
    routes_actions,
    routes_events,
    routes_health,
    routes_operations,
    routes_rules,
    routes_study,
    routes_worklist,
)
from agent.web.access import require
from agent.web.changes import Changes
from agent.web.dependencies import WebDependencies
from agent.web.dicomweb import receiving, wiring
from agent.web.pages import Pages
from agent.web.security import SECURITY_HEADERS, Guard
from db.engine import reading
from db.queries import worklist

STATIC = Path(__file__).parent / "static"

log = structlog.get_logger(__name__)


def create_app(deps: WebDependencies) -> FastAPI:
    """Build the application; it holds no state of its own."""
    # The interactive API pages of FastAPI load scripts from elsewhere, so they are off.
    app = FastAPI(
        title="worklist-agent",
        version=deps.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # served behind the door, see `_description`
    )
    pages = Pages(presentation.environment(), deps)
    doors.install(app, deps, pages)
    app.include_router(routes_worklist.router(deps, pages))
    app.include_router(routes_study.router(deps, pages))
    app.include_router(routes_actions.router(deps))
    app.state.changes = Changes(lambda: _stamp(deps))
    app.include_router(routes_events.router(app.state.changes))
    app.include_router(routes_operations.router(deps, pages))
    if deps.rules is not None:
        app.include_router(routes_rules.router(deps, pages, deps.rules))
    app.include_router(routes_health.router(deps))
    app.include_router(_description(app))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    if deps.dicomweb is not None:
        wiring.install(app, deps.dicomweb)
    app.add_middleware(
        Guard,
        bound_host=deps.web.host,
        is_upload=receiving.is_upload,
        public_url=deps.web.public_url,
        tls=deps.web.tls.certificate is not None,
    )
    _add_error_handlers(app, pages)
    return app


def _description(app: FastAPI) -> APIRouter:
    routes = APIRouter(prefix="/api", dependencies=[Depends(require(Role.VIEWER))])

    @routes.get("/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return app.openapi()

    return routes


def _stamp(deps: WebDependencies) -> tuple[int, ...]:
    with reading(deps.sessions) as session:
        return worklist.change_stamp(session)


def _add_error_handlers(app: FastAPI, pages: Pages) -> None:
    @app.exception_handler(HTTPException)
    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - Starlette's type is wider
        if _wants_json(request):
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        if page := doors.to_login(request, error.status_code):
            return page
        html = pages.render("error.html", status=error.status_code, detail=error.detail)
        return HTMLResponse(html, error.status_code)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
        # The default answer repeats the input, which may be a patient's name in a search field.
        problems = [
            {"where": ".".join(str(part) for part in item["loc"]), "why": item["msg"]}
            for item in error.errors()
        ]
        if _wants_json(request):
            return JSONResponse({"detail": problems}, 422)
        why = "; ".join(f"{p['where']}: {p['why']}" for p in problems)
        return HTMLResponse(pages.render("error.html", status=422, detail=why), 422)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:
        log.error("web_request_failed", error_type=type(error).__name__)
        # Starlette answers these outside of all middleware.
        return JSONResponse({"detail": "internal error; see the log"}, 500, SECURITY_HEADERS)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/dicom-web/"))
