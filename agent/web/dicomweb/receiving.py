"""The HTTP side of STOW-RS: how many at a time, how large, how slow; then part by part to disk."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from agent.settings_dicomweb import DicomWebSettings
from agent.web.dicomweb import negotiation, retrieve, store
from agent.web.dicomweb.catalog import DicomWeb
from agent.web.dicomweb.store import Limits, Upload
from dicom_nodes.received import Peer, StoreHandler
from dicom_nodes.web import media, multipart
from dicom_nodes.web.errors import TooLarge, UnsupportedMedia, WebRequestError
from dicom_nodes.web.json_model import JSON
from dicom_nodes.web.transcode import DICOM

log = structlog.get_logger(__name__)

MB = 1_000_000
LEAST_BYTES_PER_S = 8_000
_UPLOAD = re.compile(r"/dicom-web/studies(/[^/]+)?")


class TooSlow(WebRequestError):
    """The sender was silent for too long."""

    status = 408


def is_upload(method: str, path: str) -> bool:
    """Whether a request may bring a body of any size: its reader counts and limits it itself."""
    return method == "POST" and _UPLOAD.fullmatch(path) is not None


def router(web: DicomWeb, intake: StoreHandler) -> APIRouter:
    """``POST /studies`` and ``POST /studies/{study}``."""
    routes = APIRouter()
    settings = web.settings
    limits = Limits(settings.max_instance_mb * MB, settings.max_request_mb * MB)
    free = settings.max_uploads  # of this event loop's thread alone

    @routes.post("/studies")
    async def store_any(request: Request) -> Response:
        return await taken(request, "")

    @routes.post("/studies/{study}")
    async def store_in_study(study: str, request: Request) -> Response:
        return await taken(request, study)

    async def taken(request: Request, study_uid: str) -> Response:
        nonlocal free
        boundary = checked(request, settings)
        if free <= 0:
            raise HTTPException(
                503, "too many uploads at once", {"Retry-After": str(store.RETRY_AFTER_S)}
            )
        free -= 1
        try:
            address = request.client.host if request.client else ""
            peer = Peer(store.CALLING_AE, store.CALLING_AE, address)
            upload = Upload(boundary, study_uid, peer, intake, limits)
            return await receive(request, upload, settings.idle_timeout_s, web.root(request))
        finally:
            free += 1

    return routes


def checked(request: Request, settings: DicomWebSettings) -> str:
    """The boundary of a request that may begin.

    Raises:
        WebRequestError, HTTPException: it may not.
    """
    _check_origin(request, settings)
    negotiation.want_json(media.accepted(request.headers.get("accept", "")))
    content = media.parse(request.headers.get("content-type", "/"))
    if not content.is_multipart or content.part != DICOM:
        raise UnsupportedMedia(
            f'send multipart/related; type="{DICOM}"; metadata with bulk data apart is not taken'
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_request_mb * MB:
        raise TooLarge("the request is larger than dicomweb.max_request_mb allows")
    return multipart.boundary_of(content)


async def receive(request: Request, upload: Upload, idle_s: float, root: str) -> Response:
    """Feed the body to the upload and answer what became of its parts."""
    trouble: WebRequestError | None = None
    whole = False
    try:
        async for piece in _pieces(request, idle_s):
            await run_in_threadpool(upload.feed, piece)
        whole = True
    except WebRequestError as error:
        trouble = error
    except ClientDisconnect:
        log.warning("upload_broken", count=len(upload.outcomes))
    finally:
        await asyncio.shield(run_in_threadpool(upload.close, aborted=not whole))
    answer = store.answer(upload.outcomes, root)
    headers = {"Content-Type": JSON, **answer.headers}
    if trouble is None:
        return Response(retrieve.dumps(answer.body), answer.status, headers)
    # what was not read yet would be taken for the next request
    headers |= {"Connection": "close"}
    if answer.body:
        return Response(retrieve.dumps(answer.body), trouble.status, headers)
    return JSONResponse({"detail": str(trouble)}, trouble.status, {"Connection": "close"})


async def _pieces(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        TooSlow: nothing comes, or too little.
    """
    stream = request.stream().__aiter__()
    received, began = 0, time.monotonic()
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream), idle_s)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TooSlow("the sender was silent for too long; send the rest again") from None
        if piece:
            yield piece
        received += len(piece)
        if time.monotonic() - began > idle_s + received / LEAST_BYTES_PER_S:
            raise TooSlow("the sender is too slow; send the rest again")


def _check_origin(request: Request, settings: DicomWebSettings) -> None:
    origin = request.headers.get("origin")
    if origin is None or origin in settings.cors_origins:
        return
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "this request comes from another site's page")
