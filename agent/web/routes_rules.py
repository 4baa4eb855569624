"""The rule tester: name a study or drop a file, and see which rules, packs and channels apply."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from agent.access.principal import Role
from agent.routing import tester
from agent.routing.book import RuleBook
from agent.routing.tester import NotTestable
from agent.routing.trial import Trial
from agent.web import trail
from agent.web.access import require
from agent.web.dependencies import WebDependencies
from agent.web.pages import Pages
from db.engine import reading
from db.queries import audit as queries

#: No form can send this type, and no other site's script without being allowed to.
FILE_TYPE = "application/octet-stream"
DAYS = 7.0


def router(deps: WebDependencies, pages: Pages, book: RuleBook) -> APIRouter:
    """``/rules`` and ``/rules/file``."""
    doors = [Depends(require(Role.RADIOLOGIST))]
    routes = APIRouter(tags=["rules"], dependencies=doors, include_in_schema=False)

    @routes.get("/rules", response_class=HTMLResponse)
    def page(
        request: Request,
        study: Annotated[str, Query(max_length=128)] = "",
        days: Annotated[float, Query(ge=0, le=366)] = DAYS,
    ) -> str:
        asked = study.strip()
        trial = _of_study(request, asked) if asked else None
        with reading(deps.sessions) as session:
            history = tester.history(session, book, deps.clock(), days)
        return pages.render("rules.html", trial=trial, asked=asked, history=history, days=days)

    @routes.post("/rules/file", response_class=HTMLResponse)
    async def file(request: Request) -> str:
        """The head of a DICOM file as the body; nothing of it is kept."""
        if request.headers.get("content-type", "").split(";")[0].strip() != FILE_TYPE:
            raise HTTPException(415, f"send Content-Type: {FILE_TYPE}")
        head = await request.body()  # at most `security.MAX_BODY_BYTES`
        try:
            trial = await run_in_threadpool(tester.of_bytes, head, book)
        except NotTestable as error:
            raise HTTPException(422, str(error)) from None
        return pages.render("_trial.html", trial=trial)

    def _of_study(request: Request, reference: str) -> Trial:
        with reading(deps.sessions) as session:
            found = queries.study(session, reference)
            if found is None:
                raise HTTPException(404, "no such study; retention may have removed it")
            trail.about(request, found.key)
            return tester.of_study(session, found, book)

    return routes
