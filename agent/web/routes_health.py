"""Is it alive, is it ready, and what do the numbers say."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agent.health import Health
from agent.web.dependencies import WebDependencies


def router(deps: WebDependencies) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz")
    def alive() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @routes.get("/readyz")
    def ready() -> JSONResponse:
        """200 when studies are received and read (perhaps degraded), else 503; with reasons."""
        health = deps.health()
        return JSONResponse(health_json(health), 200 if health.ready else 503)

    @routes.get("/metrics")
    def metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(deps.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def health_json(health: Health) -> dict[str, Any]:
    """The wire form of a health answer."""
    return {
        "status": health.severity.value,
        "ready": health.ready,
        "checks": [
            {"name": c.name, "status": c.severity.value, "reason": c.reason} for c in health.checks
        ],
    }
