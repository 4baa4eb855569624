"""The door: every route states its role, and the role is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.requests import HTTPConnection

from agent.access.principal import Role
from agent.web.access import Requires, require

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


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}],
)
def test_another_sites_page_changes_nothing_where_nobody_logs_in(web: Any, headers: dict[str, str]):
    """Not by JSON only: at the door of every route."""
    app = web.client()._app
    open_to_forms = APIRouter(dependencies=[Depends(require(Role.VIEWER))])
    open_to_forms.add_api_route("/change", lambda: None, methods=["POST"])
    app.include_router(open_to_forms)
    browser = type(web.client())(app)

    assert browser.post("/change", content=b"", headers=headers).status_code == 403
    assert browser.post("/change", content=b"").status_code == 200


@pytest.mark.parametrize(
    ("client", "named", "who"),
    [("127.0.0.1", "dr.doe", "dr.doe"), ("127.0.0.1", "", None), ("10.0.0.7", "dr.doe", None)],
)
def test_only_a_trusted_proxy_names_users(web: Any, client: str, named: str, who: str | None):
    """Behind a proxy nobody comes in unnamed, and nobody names themselves."""
    app = web.client(behind_proxy=True, user_header="X-User")._app
    connection = HTTPConnection(
        {
            "type": "http",
            "headers": [(b"x-user", named.encode())],
            "client": (client, 1),
            "app": app,
        }
    )

    known = app.state.access.identify(connection)

    assert (known.name if known else None) == who
    assert known is None or known.role is Role.RADIOLOGIST
