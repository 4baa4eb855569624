"""STOW-RS (PS3.18 section 10.5): part by part to the spool, success only for what is durable.

Each part goes the way of a C-STORE: admitted before its dataset is read, written beside the spool
with our file meta, then given to the same handler. A dataset that comes both ways is one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from agent.intake.handler import read_header
from dicom_nodes import presentation, statuses
from dicom_nodes.headers import UnreadableHeader
from dicom_nodes.received import Peer, ReceivedInstance, StoreHandler, StoreRequest
from dicom_nodes.scp import storage
from dicom_nodes.scp.storage import Incoming
from dicom_nodes.web import json_model, part10
from dicom_nodes.web.errors import TooLarge, WebRequestError
from dicom_nodes.web.media import parse
from dicom_nodes.web.multipart import Event, Parser, PartBegins, PartBytes
from dicom_nodes.web.part10 import FileMeta, NotPart10
from dicom_nodes.web.transcode import DICOM

log = structlog.get_logger(__name__)

CALLING_AE = "STOW-RS"
"""Stands for the calling AE title of what comes by HTTP, in the record and in routing rules."""
MAX_PARTS = 20_000
RETRY_AFTER_S = 30

# Failure Reason (0008,1197), PS3.18 table I.2-2; others as in C-STORE
SYNTAX_NOT_SUPPORTED = 0xC122
TOO_LARGE = 0xC005
INCOMPLETE = 0xC006
NOT_DICOM = 0xC007


@dataclass(frozen=True)
class Outcome:
    """What became of one part; without UIDs where it was no DICOM file."""

    status: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is durable and indexed."""
        return self.status == statuses.SUCCESS


@dataclass(frozen=True)
class Limits:
    """Bytes of one instance and of one request."""

    instance_bytes: int
    request_bytes: int


@dataclass
class _Seen:
    """What the header of an instance said."""

    study_uid: str = ""
    series_uid: str = ""


class _OfStudy:
    """The handler, behind the check that an instance belongs to the study in the URL."""

    def __init__(self, handler: StoreHandler, study_uid: str, seen: _Seen) -> None:
        self._handler = handler
        self._study_uid = study_uid
        self._seen = seen

    @property
    def incoming(self) -> Path:
        return self._handler.incoming

    def admit(self, request: StoreRequest) -> int:
        return self._handler.admit(request)

    def store(self, instance: ReceivedInstance) -> int:
        try:
            header = read_header(instance)
        except UnreadableHeader:  # the handler says so in its own way
            return self._handler.store(instance)
        if self._study_uid and header.study_uid != self._study_uid:
            instance.path.unlink(missing_ok=True)
            return statuses.DATASET_MISMATCH
        self._seen.study_uid, self._seen.series_uid = header.study_uid, header.series_uid
        return self._handler.store(instance)

    def association_opened(self, peer: Peer) -> None:
        self._handler.association_opened(peer)

    def association_closed(self, peer: Peer, *, aborted: bool) -> None:
        self._handler.association_closed(peer, aborted=aborted)


class _Part:
    """One part on its way to the spool."""

    def __init__(self, part: PartBegins, peer: Peer, handler: StoreHandler, most: int) -> None:
        self._peer = peer
        self._handler = handler
        self._most = most
        self._head = bytearray()
        self._incoming: Incoming | None = None
        self._meta: FileMeta | None = None
        self._failure = 0 if _is_dicom(part) else NOT_DICOM

    def add(self, data: bytes) -> None:
        """Take the next bytes; what cannot be taken is read and dropped."""
        if self._failure:
            return
        if self._incoming is None:
            data = self._begin(data)
        if self._incoming is None or not data:
            return
        if self._incoming.size_bytes + len(data) > self._most:
            self._fail(TOO_LARGE)
            return
        try:
            self._incoming.add(memoryview(data))
            self._incoming.flush()
        except OSError as error:
            self._fail(storage.failure_status(error))

    def finish(self, study_uid: str) -> Outcome:
        """The part is whole: make it durable."""
        if not self._failure and self._incoming is None:
            self._failure = NOT_DICOM
        if self._failure or self._incoming is None:
            return self._outcome(self._failure)
        incoming, self._incoming = self._incoming, None
        seen = _Seen()
        status = storage.store(_OfStudy(self._handler, study_uid, seen), incoming)
        return self._outcome(status, seen)

    def give_up(self) -> Outcome:
        """The rest will not come."""
        self._fail(self._failure or INCOMPLETE)
        return self._outcome(self._failure)

    def _begin(self, data: bytes) -> bytes:
        """Read file meta; returns the bytes of the dataset behind it, once it is whole."""
        self._head += data
        try:
            self._meta = part10.read_meta(bytes(self._head))
        except NotPart10:
            self._fail(NOT_DICOM)
        if self._meta is None:
            return b""
        rest = bytes(self._head[self._meta.dataset_offset :])
        self._head.clear()
        meta = self._meta
        request = StoreRequest(
            meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, self._peer
        )
        status = self._admit(request)
        if status != statuses.SUCCESS:
            self._fail(status)
            return b""
        try:
            self._incoming = Incoming(self._handler.incoming, request)
        except OSError as error:
            self._fail(storage.failure_status(error))
        return rest

    def _admit(self, request: StoreRequest) -> int:
        if not presentation.is_storage(request.sop_class_uid):
            return statuses.SOP_CLASS_NOT_SUPPORTED
        if request.transfer_syntax_uid not in presentation.TRANSFER_SYNTAXES:
            return SYNTAX_NOT_SUPPORTED
        return storage.admit(self._handler, request, request.sop_class_uid)

    def _fail(self, status: int) -> None:
        self._failure = status
        self._head.clear()
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _outcome(self, status: int, seen: _Seen | None = None) -> Outcome:
        seen = seen or _Seen()
        if self._meta is None:
            return Outcome(status)
        return Outcome(
            status,
            self._meta.sop_class_uid,
            self._meta.sop_instance_uid,
            seen.study_uid,
            seen.series_uid,
        )


class Upload:
    """One STOW request: feed it the body, then ask what became of each part.

    Not for two threads at once.
    """

    def __init__(
        self, boundary: str, study_uid: str, peer: Peer, handler: StoreHandler, limits: Limits
    ) -> None:
        self._parser = Parser(boundary)
        self._study_uid = study_uid
        self._peer = peer
        self._handler = handler
        self._limits = limits
        self._received = 0
        self._part: _Part | None = None
        self.outcomes: list[Outcome] = []
        handler.association_opened(peer)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            WebRequestError: the body is not multipart, or too large.
        """
        self._received += len(data)
        if self._received > self._limits.request_bytes:
            raise TooLarge("the request is larger than dicomweb.max_request_mb allows")
        for event in self._parser.feed(data):
            self._take(event)

    def close(self, *, aborted: bool = False) -> None:
        """The body has ended: a part without its end is not stored."""
        if self._part is not None:
            self.outcomes.append(self._part.give_up())
            self._part = None
        self._handler.association_closed(self._peer, aborted=aborted)

    def _take(self, event: Event) -> None:
        if isinstance(event, PartBegins):
            if len(self.outcomes) >= MAX_PARTS:
                raise TooLarge(f"a request holds at most {MAX_PARTS} parts")
            self._part = _Part(event, self._peer, self._handler, self._limits.instance_bytes)
        elif isinstance(event, PartBytes):
            if self._part is not None:
                self._part.add(event.data)
        elif self._part is not None:
            part, self._part = self._part, None
            self.outcomes.append(part.finish(self._study_uid))


@dataclass(frozen=True)
class Answer:
    """HTTP status, DICOM JSON and headers of a STOW response."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def answer(outcomes: Iterable[Outcome], root: str) -> Answer:
    """The response (PS3.18 table 10.5.3-1): what is stored, what failed and why. Pure."""
    outcomes = list(outcomes)
    failed = [one for one in outcomes if not one.ok]
    known = [one for one in failed if one.sop_instance_uid]
    studies = sorted({one.study_uid for one in outcomes if one.ok and one.study_uid})
    values: dict[str, Any] = {}
    if len(studies) == 1:
        values["RetrieveURL"] = f"{root}/studies/{studies[0]}"
    stored = [_stored(one, root) for one in outcomes if one.ok]
    if stored:
        values["ReferencedSOPSequence"] = stored
    if known:
        values["FailedSOPSequence"] = [_reference(one) | _reason(one) for one in known]
    if len(known) < len(failed):
        others = [_reason(one) for one in failed if not one.sop_instance_uid]
        values["OtherFailuresSequence"] = others
    status = _status(outcomes, failed)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    return Answer(status, json_model.elements(values), headers)


def _status(outcomes: list[Outcome], failed: list[Outcome]) -> int:
    reasons = {one.status for one in failed}
    if not outcomes:
        return 400
    if not failed:
        return 200
    if len(failed) < len(outcomes):
        return 202
    if reasons == {statuses.OUT_OF_RESOURCES}:
        return 503
    if reasons == {TOO_LARGE}:
        return 413
    return 400 if reasons <= {NOT_DICOM, INCOMPLETE} else 409


def _stored(one: Outcome, root: str) -> dict[str, Any]:
    url = f"{root}/studies/{one.study_uid}/series/{one.series_uid}/instances/{one.sop_instance_uid}"
    return _reference(one) | ({"RetrieveURL": url} if one.series_uid else {})


def _reference(one: Outcome) -> dict[str, Any]:
    return {
        "ReferencedSOPClassUID": one.sop_class_uid,
        "ReferencedSOPInstanceUID": one.sop_instance_uid,
    }


def _reason(one: Outcome) -> dict[str, Any]:
    return {"FailureReason": one.status}


def _is_dicom(part: PartBegins) -> bool:
    try:
        return parse(part.headers.get("content-type", DICOM)).name == DICOM
    except WebRequestError:
        return False
