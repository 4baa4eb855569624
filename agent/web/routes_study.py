"""One study: its page, its JSON, and the pictures of its findings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, HTTPException
from fastapi.encoders import jsonable_encoder
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydicom.errors import InvalidDicomError

from agent.access.principal import Role
from agent.web import report_text
from agent.web.access import require
from agent.web.dependencies import WebDependencies
from agent.web.pages import Pages
from agent.web.pictures import PictureError, Slice
from agent.web.routes_worklist import entry_json
from agent.web.study_detail import StudyDetail, study_detail
from db.engine import reading
from db.queries.worklist import find_report, find_study


def router(deps: WebDependencies, pages: Pages) -> APIRouter:
    """``/studies/…`` and ``/api/studies/…``; a study is addressed by its key or database id."""
    routes = APIRouter(tags=["studies"], dependencies=[Depends(require(Role.VIEWER))])

    def read(reference: str) -> StudyDetail:
        with reading(deps.sessions) as session:
            detail = study_detail(session, reference, deps.priority, deps.clock())
        if detail is None:
            raise HTTPException(404, "no such study; retention may have removed it")
        return detail

    @routes.get("/studies/{reference}", response_class=HTMLResponse, include_in_schema=False)
    def page(reference: str) -> str:
        return pages.render("study.html", study=read(reference), now=deps.clock())

    @routes.get("/fragments/studies/{reference}", include_in_schema=False)
    def fragment(reference: str) -> HTMLResponse:
        html = pages.render("_study.html", study=read(reference), now=deps.clock())
        return HTMLResponse(html)

    @routes.get("/api/studies/{reference}")
    def api(reference: str) -> dict[str, Any]:
        """Timeline, series with skip reasons, analyses, results, deliveries, feedback."""
        return detail_json(read(reference))

    @routes.get(
        "/studies/{reference}/findings/{label}.png",
        responses={200: {"content": {"image/png": {}}}},
        response_class=Response,
    )
    def picture(reference: str, label: str) -> Response:
        """The key slice of a finding in the latest analysis, the model's attention over it."""
        with reading(deps.sessions) as session:
            study = find_study(session, reference)
        if study is None:
            raise HTTPException(404, "no such study; retention may have removed it")
        try:
            png = deps.overlay(study.id, label)
        except PictureError as error:
            raise HTTPException(404, str(error)) from None
        return Response(png, media_type="image/png")

    @routes.get("/api/studies/{reference}/findings/{label}/slices")
    def slices(reference: str, label: str) -> dict[str, int]:
        """How many slices the series of a finding has, and which shows it best (from 0)."""
        found = _slice(reference, label, None, True)
        return {"count": found.count, "key": found.key}

    @routes.get(
        "/studies/{reference}/findings/{label}/slices/{index}.png",
        responses={200: {"content": {"image/png": {}}}},
        response_class=Response,
    )
    def one_slice(reference: str, label: str, index: int, plain: bool = False) -> Response:
        """One slice of the series of a finding, with the model's attention unless `plain`."""
        return Response(_slice(reference, label, index, not plain).png, media_type="image/png")

    @routes.get("/studies/{reference}/results/{sop_uid}.txt", include_in_schema=False)
    def report(reference: str, sop_uid: str) -> PlainTextResponse:
        """A structured report that was made of this study, as text."""
        return PlainTextResponse(_report(reference, sop_uid))

    def _slice(reference: str, label: str, index: int | None, painted: bool) -> Slice:
        with reading(deps.sessions) as session:
            study = find_study(session, reference)
        if study is None or deps.slices is None:
            raise HTTPException(404, "no such study; retention may have removed it")
        try:
            return deps.slices(study.id, label, index, painted)
        except PictureError as error:
            raise HTTPException(404, str(error)) from None

    def _report(reference: str, sop_uid: str) -> str:
        with reading(deps.sessions) as session:
            study = find_study(session, reference)
            row = find_report(session, study.id, sop_uid) if study is not None else None
        if row is None or deps.results_dir is None:
            raise HTTPException(404, "no such report of this study")
        try:
            return report_text.read(deps.results_dir / row.path)
        except (OSError, InvalidDicomError):
            raise HTTPException(404, "the report's file is gone or cannot be read") from None

    return routes


def detail_json(detail: StudyDetail) -> dict[str, Any]:
    """The wire form of a study: its worklist entry, the delivery summary replaced by the rows."""
    return {**entry_json(detail.entry), **jsonable_encoder(detail, exclude={"entry"})}
