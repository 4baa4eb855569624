"""The door: every route states its role, and the role is asked for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import RouteContext, iter_route_contexts

from agent.web.access import Requires

#: Asked by monitors that cannot log in; they tell no patient data.
OPEN_PATHS = {"/healthz", "/readyz", "/metrics", "/static"}
#: How one comes to have a role.
LOGIN_PATHS = {"/login", "/logout", "/login/oidc", "/login/oidc/callback"}


def _routes(app: FastAPI) -> dict[str, list[Requires]]:
    """Path (and method) -> the doors before it."""
    return {
        f"{context.path} {sorted(context.methods or ())}": _doors(context)
        for context in iter_route_contexts(app.routes)
    }


def _doors(context: RouteContext) -> list[Requires]:
    dependant = getattr(context, "dependant", None)
    calls = [d.call for d in dependant.dependencies] if dependant else []
    return [call for call in calls if isinstance(call, Requires)]


def _doorless(app: FastAPI) -> set[str]:
    doorless = {name.split()[0] for name, doors in _routes(app).items() if not doors}
    return doorless - OPEN_PATHS - LOGIN_PATHS


def test_every_route_states_its_role(web: Any):
    """A route that forgot its door is found here, not by a stranger."""
    app = web.client()._app

    assert _doorless(app) == set()
    assert len(_routes(app)) > 10


def test_a_route_without_a_door_is_noticed(web: Any):
    """The test above can fail."""
    app = web.client()._app
    forgotten = APIRouter()
    forgotten.add_api_route("/forgotten", lambda: None)
    app.include_router(forgotten)

    assert _doorless(app) == {"/forgotten"}
