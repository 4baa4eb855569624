"""``/dicom-web``: searching, retrieving, storing. What is asked of whom stands at the routers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from agent.access.principal import Role
from agent.web.access import require
from agent.web.dicomweb import negotiation, receiving, retrieve
from agent.web.dicomweb.catalog import DicomWeb, Headers
from agent.web.dicomweb.retrieve import Retrieve
from agent.web.dicomweb.search import Answer, Search
from dicom_nodes.web import media, query
from dicom_nodes.web.errors import WebRequestError
from dicom_nodes.web.json_model import JSON
from dicom_nodes.web.media import MediaType
from dicom_nodes.web.query import Level

ROOT = "/dicom-web"


def router(web: DicomWeb) -> APIRouter:
    """All of DICOMweb: looking is for viewers, storing for machines."""
    routes = APIRouter(prefix=ROOT, tags=["dicomweb"])
    viewer, service = Depends(require(Role.VIEWER)), Depends(require(Role.SERVICE))
    routes.include_router(_search(web), dependencies=[viewer])
    wado = Retrieve(web)
    routes.include_router(_retrieve(web, wado), dependencies=[viewer])
    routes.include_router(_pictures(web, wado), dependencies=[viewer])
    if web.settings.store and web.intake is not None:
        routes.include_router(receiving.router(web, web.intake), dependencies=[service])
    return routes


def accepted(request: Request) -> list[MediaType]:
    """What the client accepts, as a dependency."""
    return media.accepted(request.headers.get("accept", ""), request.query_params.get("accept", ""))


Accepts = Annotated[list[MediaType], Depends(accepted)]


def _search(web: DicomWeb) -> APIRouter:
    routes = APIRouter()
    search = Search(web, Headers())
    most = web.settings.max_results

    def asked(request: Request, level: Level, accepts: list[MediaType]) -> query.Query:
        negotiation.want_json(accepts)
        return query.parse(request.query_params.multi_items(), level, most)

    @routes.get("/studies")
    def studies(request: Request, accepts: Accepts) -> Response:
        wanted = asked(request, Level.STUDY, accepts)
        return _matches(search.studies(wanted, web.root(request)))

    @routes.get("/series")
    def series(request: Request, accepts: Accepts) -> Response:
        wanted = asked(request, Level.SERIES, accepts)
        return _matches(search.series(wanted, web.root(request)))

    @routes.get("/instances")
    def instances(request: Request, accepts: Accepts) -> Response:
        wanted = asked(request, Level.INSTANCE, accepts)
        return _matches(search.instances(wanted, web.root(request)))

    @routes.get("/studies/{study}/series")
    def series_of_study(study: str, request: Request, accepts: Accepts) -> Response:
        wanted = asked(request, Level.SERIES, accepts)
        return _matches(search.series(wanted, web.root(request), study))

    @routes.get("/studies/{study}/instances")
    def instances_of_study(study: str, request: Request, accepts: Accepts) -> Response:
        wanted = asked(request, Level.INSTANCE, accepts)
        return _matches(search.instances(wanted, web.root(request), study))

    @routes.get("/studies/{study}/series/{series}/instances")
    def instances_of_series(
        study: str, series: str, request: Request, accepts: Accepts
    ) -> Response:
        wanted = asked(request, Level.INSTANCE, accepts)
        return _matches(search.instances(wanted, web.root(request), study, series))

    return routes


def _retrieve(web: DicomWeb, wado: Retrieve) -> APIRouter:
    routes = APIRouter()

    def json_of(request: Request, accepts: list[MediaType], study: str, *below: str) -> Response:
        negotiation.want_json(accepts)
        return wado.metadata(web.objects(study, *below), web.root(request), study)

    @routes.get("/studies/{study}")
    def whole_study(study: str, accepts: Accepts) -> Response:
        return wado.instances(web.objects(study), accepts)

    @routes.get("/studies/{study}/metadata")
    def study_metadata(study: str, request: Request, accepts: Accepts) -> Response:
        return json_of(request, accepts, study)

    @routes.get("/studies/{study}/series/{series}")
    def whole_series(study: str, series: str, accepts: Accepts) -> Response:
        return wado.instances(web.objects(study, series), accepts)

    @routes.get("/studies/{study}/series/{series}/metadata")
    def series_metadata(study: str, series: str, request: Request, accepts: Accepts) -> Response:
        return json_of(request, accepts, study, series)

    @routes.get("/studies/{study}/series/{series}/instances/{instance}")
    def one_instance(study: str, series: str, instance: str, accepts: Accepts) -> Response:
        return wado.instances(web.objects(study, series, instance), accepts)

    @routes.get("/studies/{study}/series/{series}/instances/{instance}/metadata")
    def instance_metadata(
        study: str, series: str, instance: str, request: Request, accepts: Accepts
    ) -> Response:
        return json_of(request, accepts, study, series, instance)

    @routes.get("/studies/{study}/series/{series}/instances/{instance}/bulkdata/{place:path}")
    def bulk(study: str, series: str, instance: str, place: str, accepts: Accepts) -> Response:
        return wado.bulk(web.objects(study, series, instance)[0], place, accepts)

    @routes.get("/studies/{study}/series/{series}/instances/{instance}/frames/{numbers}")
    def frames(study: str, series: str, instance: str, numbers: str, accepts: Accepts) -> Response:
        found = web.objects(study, series, instance)
        return wado.frames(found[0], frame_numbers(numbers), accepts)

    return routes


def _pictures(web: DicomWeb, wado: Retrieve) -> APIRouter:
    routes = APIRouter()

    def picture(
        request: Request, accepts: list[MediaType], *place: str, frame: str = ""
    ) -> Response:
        found = retrieve.representative(web.objects(*place)) if len(place) < 3 else None
        one = found or web.objects(*place)[0]
        numbers = frame_numbers(frame) if frame else [None]
        if len(numbers) > 1:
            raise WebRequestError("one picture shows one frame")
        thumbnail = request.url.path.endswith("/thumbnail")
        params = dict(request.query_params)
        return wado.rendered(one, numbers[0], accepts, params, thumbnail=thumbnail)

    @routes.get("/studies/{study}/rendered")
    @routes.get("/studies/{study}/thumbnail")
    def of_study(study: str, request: Request, accepts: Accepts) -> Response:
        return picture(request, accepts, study)

    @routes.get("/studies/{study}/series/{series}/rendered")
    @routes.get("/studies/{study}/series/{series}/thumbnail")
    def of_series(study: str, series: str, request: Request, accepts: Accepts) -> Response:
        return picture(request, accepts, study, series)

    @routes.get("/studies/{study}/series/{series}/instances/{instance}/rendered")
    @routes.get("/studies/{study}/series/{series}/instances/{instance}/thumbnail")
    def of_instance(
        study: str, series: str, instance: str, request: Request, accepts: Accepts
    ) -> Response:
        return picture(request, accepts, study, series, instance)

    @routes.get("/studies/{study}/series/{series}/instances/{instance}/frames/{number}/rendered")
    @routes.get("/studies/{study}/series/{series}/instances/{instance}/frames/{number}/thumbnail")
    def of_frame(
        study: str, series: str, instance: str, number: str, request: Request, accepts: Accepts
    ) -> Response:
        return picture(request, accepts, study, series, instance, frame=number)

    return routes


def frame_numbers(text: str) -> list[int]:
    """Frame numbers of a URL.

    Raises:
        WebRequestError: it is no list of numbers.
    """
    pieces = text.split(",")
    if not all(piece.isascii() and piece.isdecimal() and len(piece) < 10 for piece in pieces):
        raise WebRequestError("frames are numbers, joined by commas")
    return [int(piece) for piece in pieces]


def _matches(answer: Answer) -> Response:
    headers = {"Content-Type": JSON}
    if answer.warnings:
        headers["Warning"] = ", ".join(f'299 worklist-agent "{text}"' for text in answer.warnings)
    return Response(retrieve.dumps(answer.matches), headers=headers)
