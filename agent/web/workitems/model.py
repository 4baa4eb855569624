"""DICOM JSON in and out, queries, statuses and Warning headers of UPS-RS (PS3.18 section 11)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_nodes.ups import MEANINGS, Refused, Status

JSON = "application/dicom+json"
MAX_DEPTH = 4
_TYPES = frozenset({JSON, "application/json"})
_CONTROL = frozenset({"limit", "offset", "includefield", "fuzzymatching", "accept", "filter"})

#: Refusal -> status code (tables 11.4.3-1 to 11.10.3-1); others are 409.
STATUS_CODES = {
    Status.INVALID_VALUE: 400,
    Status.MISSING_ATTRIBUTE: 400,
    Status.NOT_SCHEDULED: 400,
    Status.ONLY_CREATED_SCHEDULED: 409,
    Status.NOT_AUTHORIZED: 403,
    Status.UNKNOWN_WORKITEM: 404,
    Status.UNKNOWN_RECEIVER: 404,
    Status.INAPPROPRIATE_ACTION: 400,
    Status.RESOURCE_LIMITATION: 503,
}

#: What the standard has clients read in a Warning header.
_WARNINGS = {
    Status.WRONG_TRANSACTION: "The Transaction UID is incorrect.",
    Status.MAY_NOT_BE_UPDATED: (
        "The submitted request is inconsistent with the current state of the Workitem."
    ),
    Status.ALREADY_IN_PROGRESS: (
        "The submitted request is inconsistent with the current state of the Workitem."
    ),
    Status.NOT_IN_PROGRESS: "The target URI did not reference a claimed Workitem.",
    Status.COMPLETED_ALREADY: "The Workitem is already COMPLETED.",
}
_MISSING = "The Transaction UID is missing."


def warning(text: str) -> dict[str, str]:
    """A Warning header."""
    return {"Warning": f'299 worklist-agent: "{text}"'}


def refusal(error: Refused) -> JSONResponse:
    """The answer to an operation that is not done."""
    text = _WARNINGS.get(error.status, MEANINGS[error.status])
    if error.status is Status.WRONG_TRANSACTION and "missing" in str(error):
        text = _MISSING
    code = STATUS_CODES.get(error.status, 409)
    return JSONResponse({"detail": str(error)}, code, warning(text))


def done(status: Status, code: int = 200) -> Response:
    """The answer to an operation that is done; warnings of the standard in the header."""
    headers = {} if status is Status.SUCCESS else warning(MEANINGS[status])
    return Response(status_code=code, headers=headers)


def answer(items: Iterable[Dataset], warn: str = "") -> Response:
    """Datasets as one array; 204 for none."""
    content = json.dumps([item.to_json_dict() for item in items]).encode()
    headers = warning(warn) if warn else {}
    if content == b"[]":
        return Response(status_code=204, headers=headers)
    return Response(content, media_type=JSON, headers=headers)


async def dataset(request: Request, *, required: bool = True) -> Dataset:
    """The one dataset of a body, as an object or as an array of one.

    Raises:
        HTTPException: 415 or 400.
    """
    check_origin(request)
    content = await request.body()
    if not content and not required:
        return Dataset()
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in _TYPES:
        raise HTTPException(415, f"send Content-Type: {JSON}")
    read = _read(content)
    if read is None:
        raise HTTPException(400, "the body is not one dataset in DICOM JSON")
    return read


def check_origin(request: Request) -> None:
    """Refuse writes that another site's page could have caused.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, "this request comes from another site's page")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise HTTPException(403, "this request comes from another site's page")


def keys(params: Iterable[tuple[str, str]]) -> Dataset:
    """Match keys of a query: keyword or tag, dotted into sequences, to their values.

    Raises:
        HTTPException: 400: an unknown attribute.
    """
    wanted = Dataset()
    for name, value in params:
        if name.lower() not in _CONTROL:
            _put(wanted, name.split("."), value)
    return wanted


def filters(text: str) -> Dataset:
    """Match keys of the ``filter`` parameter: ``attribute=value`` pairs, split by commas.

    Raises:
        HTTPException: 400.
    """
    pairs = [one.partition("=") for one in text.split(",") if one]
    return keys((name, value) for name, _, value in pairs)


def number(request: Request, name: str, default: int, most: int) -> int:
    """A paging parameter.

    Raises:
        HTTPException: 400.
    """
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise HTTPException(400, f"{name} is a number")
    return min(int(text), most)


def _read(content: bytes) -> Dataset | None:
    try:
        said = json.loads(content)
        item = said[0] if isinstance(said, list) and len(said) == 1 else said
        if not isinstance(item, dict) or _depth(item) > 2 * MAX_DEPTH + 8:
            return None
        read = Dataset.from_json(item)
        json.dumps(read.to_json_dict())  # every value can be written again
    except Exception:  # noqa: BLE001 - whatever the library says would quote the dataset
        return None
    return read


def _put(ds: Dataset, path: list[str], value: str) -> None:
    if len(path) > MAX_DEPTH:
        raise HTTPException(400, "a query attribute is nested too deep")
    name = path[0]
    hexadecimal = len(name) == 8 and all(c in "0123456789abcdefABCDEF" for c in name)
    tag = Tag(int(name, 16)) if hexadecimal else tag_for_keyword(name)
    if tag is None:
        raise HTTPException(400, "unknown attribute in the query; use keywords or tags")
    try:
        vr = dictionary_VR(tag)
        if vr == "SQ" and len(path) > 1:
            if tag not in ds:
                ds.add_new(tag, "SQ", [Dataset()])
            _put(ds[tag].value[0], path[1:], value)
        elif vr != "SQ" and len(path) == 1:
            ds.add_new(tag, vr, value.replace(",", "\\").split("\\") if vr == "UI" else value)
        else:
            raise HTTPException(400, "a query attribute that is no path of a dataset")
    except (KeyError, ValueError, TypeError):
        raise HTTPException(400, "a query attribute that cannot be matched") from None


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(v) for v in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(v) for v in value), default=0)
    return 0
