"""The UPS-RS transactions (PS3.18 section 11) below ``/dicom-web``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from pydicom.dataset import Dataset
from starlette.concurrency import run_in_threadpool

from agent.access.principal import Role
from agent.audit.kinds import Kind
from agent.web import trail
from agent.web.access import require, who
from agent.web.workitems import channel, model
from agent.workitems.service import Workitems
from dicom_nodes.scp.matching import MatchingError
from dicom_nodes.ups import FILTERED_GLOBAL, Refused, Status

BASE = "/dicom-web"
MAX_MATCHES = 500
T = TypeVar("T")


def install(app: FastAPI, workitems: Workitems) -> None:
    """Add the routes, and how refusals are answered."""
    app.include_router(router(workitems))

    @app.exception_handler(Refused)
    def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)  # noqa: S101 - Starlette's type is wider
        return model.refusal(error)


def router(workitems: Workitems) -> APIRouter:
    """All transactions; reading needs a viewer, changing a radiologist or a service."""
    routes = APIRouter(prefix=BASE, tags=["workitems"])
    _add_workitems(routes, workitems)
    _add_subscriptions(routes, workitems)
    return routes


def _look() -> list[Any]:
    return [Depends(require(Role.VIEWER, Role.SERVICE))]


def _work() -> list[Any]:
    return [Depends(require(Role.RADIOLOGIST, Role.SERVICE))]


def _add_workitems(routes: APIRouter, workitems: Workitems) -> None:
    look, work = _look(), _work()

    @routes.get("/workitems", dependencies=look)
    async def search(request: Request) -> Response:
        """11.9: match keys, limit, offset; in reading order."""
        keys = model.keys(request.query_params.multi_items())
        limit = model.number(request, "limit", MAX_MATCHES, MAX_MATCHES)
        offset = model.number(request, "offset", 0, 10**9)

        def find() -> list[Dataset]:
            return list(itertools.islice(workitems.search(keys), offset, offset + limit + 1))

        found = await _do(find)
        more = "There are more results; ask with offset." if len(found) > limit else ""
        return model.answer(found[:limit], more)

    @routes.post("/workitems", dependencies=work)
    async def create(request: Request) -> Response:
        """11.4: 201 with the workitem's address."""
        ds = await model.dataset(request)
        uid = _asked_uid(request) or str(ds.get("SOPInstanceUID") or "")
        name = who(request).name
        made = await _do(lambda: workitems.create(uid, ds, name))
        where = f"{BASE}/workitems/{made}"
        return Response(status_code=201, headers={"Location": where, "Content-Location": where})

    @routes.get("/workitems/{uid}", dependencies=look)
    async def retrieve(uid: str, request: Request) -> Response:
        """11.5: all attributes but the Transaction UID."""
        found = await _do(lambda: workitems.retrieve(uid))
        trail.about(request, str(found.get("StudyInstanceUID") or ""), kind=Kind.VIEWED)
        return model.answer([found])

    @routes.post("/workitems/{uid}", dependencies=work)
    async def update(
        uid: str, request: Request, transaction: Annotated[str, Query(alias="transaction-uid")] = ""
    ) -> Response:
        """11.6: attributes of a workitem that is scheduled, or claimed by who asks."""
        changes = await model.dataset(request)
        if transaction and "TransactionUID" not in changes:
            changes.TransactionUID = transaction
        return model.done(await _do(lambda: workitems.update(uid, changes)))

    @routes.put("/workitems/{uid}/state", dependencies=work)
    @routes.put("/workitems/{uid}/state/{requester}", dependencies=work)
    async def change_state(uid: str, request: Request, requester: str = "") -> Response:
        """11.7: claim, complete or cancel with the Transaction UID."""
        ds = await model.dataset(request)
        wanted, lock = (str(ds.get(k) or "") for k in ("ProcedureStepState", "TransactionUID"))
        by = requester or who(request).name
        return model.done(await _do(lambda: workitems.change_state(uid, wanted, lock, by)))

    @routes.post("/workitems/{uid}/cancelrequest", dependencies=work)
    @routes.post("/workitems/{uid}/cancelrequest/{requester}", dependencies=work)
    async def request_cancel(uid: str, request: Request, requester: str = "") -> Response:
        """11.8: 202; the performer of a claimed one decides."""
        asked = await model.dataset(request, required=False)
        by = requester or request.query_params.get("requester", "") or who(request).name
        return model.done(await _do(lambda: workitems.request_cancel(uid, asked, by)), 202)


def _add_subscriptions(routes: APIRouter, workitems: Workitems) -> None:
    work = _work()

    @routes.post("/workitems/{uid}/subscribers/{ae_title}", dependencies=work)
    async def subscribe(uid: str, ae_title: str, request: Request) -> Response:
        """11.10: 201 with the address of the event channel."""
        model.check_origin(request)
        lock = request.query_params.get("deletionlock", "false").lower() == "true"
        text = request.query_params.get("filter", "")
        keys = model.filters(text) if uid == FILTERED_GLOBAL else None
        if keys is not None and not len(keys):
            raise HTTPException(400, "a filtered subscription needs filter=attribute=value,...")
        await _do(lambda: workitems.subscribe(uid, ae_title, deletion_lock=lock, keys=keys))
        scheme = "wss" if request.url.scheme == "https" else "ws"
        where = f"{scheme}://{request.headers.get('host')}{BASE}/subscribers/{ae_title}"
        return Response(status_code=201, headers={"Content-Location": where})

    @routes.delete("/workitems/{uid}/subscribers/{ae_title}", dependencies=work)
    async def unsubscribe(uid: str, ae_title: str, request: Request) -> Response:
        """11.11."""
        model.check_origin(request)
        return model.done(await _do(lambda: workitems.unsubscribe(uid, ae_title)))

    @routes.post("/workitems/{uid}/subscribers/{ae_title}/suspend", dependencies=work)
    async def suspend(uid: str, ae_title: str, request: Request) -> Response:
        """11.12: of a global subscription."""
        model.check_origin(request)
        return model.done(await _do(lambda: workitems.suspend(uid, ae_title)))

    # who listens takes the events away from the subscriber: looking is not enough
    @routes.websocket("/subscribers/{ae_title}", dependencies=work)
    async def events(socket: WebSocket, ae_title: str) -> None:
        """8.10: the event channel of a subscriber."""
        await channel.serve(socket, ae_title, workitems.sessions)


async def _do(operation: Callable[[], T]) -> T:
    """Run an operation in a thread; `Refused` has an answer of its own."""
    try:
        return await run_in_threadpool(operation)
    except MatchingError as error:
        raise HTTPException(400, str(error)) from None
    except (ValueError, TypeError, AttributeError, KeyError):  # a library would quote the value
        raise Refused(Status.INVALID_VALUE) from None


def _asked_uid(request: Request) -> str:
    """``?workitem=UID``; some clients say ``?UID`` or name the command's attribute."""
    params = request.query_params
    named = params.get("workitem") or params.get("AffectedSOPInstanceUID")
    return named or next((k for k, v in params.multi_items() if not v and k[:1].isdigit()), "")
