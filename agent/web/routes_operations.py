"""The operations page: queues, throughput, failures, destinations, disk and device."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from agent.access.principal import Role
from agent.web.access import require
from agent.web.dependencies import WebDependencies
from agent.web.operations_view import Operations, operations
from agent.web.pages import Pages
from db.engine import reading


def router(deps: WebDependencies, pages: Pages) -> APIRouter:
    """``/operations``; it shows no patient data."""
    routes = APIRouter(tags=["operation"], dependencies=[Depends(require(Role.VIEWER))])

    def look() -> Operations:
        with reading(deps.sessions) as session:
            return operations(session, deps.clock(), deps.health, deps.destinations, deps.spool_dir)

    @routes.get("/operations", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        return pages.render("operations.html", seen=look())

    @routes.get("/fragments/operations", response_class=HTMLResponse, include_in_schema=False)
    def fragment() -> str:
        return pages.render("_operations.html", seen=look())

    return routes
