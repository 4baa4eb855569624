"""WADO-RS (PS3.18 section 10.4): instances, metadata, bulk data, frames and pictures, streamed."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
from starlette.responses import Response, StreamingResponse

from agent.web.dicomweb import negotiation
from agent.web.dicomweb.catalog import DicomWeb
from agent.web.dicomweb.negotiation import FrameForm
from db.queries.dicomweb import SPOOL, ObjectFound
from dicom_nodes.web import decoding, frames, json_model, rendering, transcode
from dicom_nodes.web.decoding import CHILDREN, Decoder
from dicom_nodes.web.errors import NotThere, Undecodable, WebRequestError
from dicom_nodes.web.frames import OCTETS
from dicom_nodes.web.json_model import JSON, PIXEL_TAGS, Opened
from dicom_nodes.web.media import MediaType
from dicom_nodes.web.multipart import Writer

log = structlog.get_logger(__name__)

_NO_IMAGES = frozenset({"SR", "SEG", "PR", "KO", "DOC", "RWV", "REG", "FID", "PLAN"})


class Retrieve:
    """Answers of WADO-RS."""

    def __init__(self, web: DicomWeb) -> None:
        self._web = web
        self._decoder = Decoder()
        self._decoding = threading.BoundedSemaphore(CHILDREN)

    def instances(self, found: Sequence[ObjectFound], accepts: Sequence[MediaType]) -> Response:
        """The files, in a transfer syntax that was asked for."""
        wanted, single = negotiation.dicom_form(accepts, one=len(found) == 1)
        syntaxes = [transcode.syntax_for(one.transfer_syntax_uid, wanted) for one in found]
        if single:
            content_type = f"{transcode.DICOM}; transfer-syntax={syntaxes[0]}"
            return StreamingResponse(
                self._pieces(found[0], syntaxes[0]), headers={"Content-Type": content_type}
            )
        writer = Writer(transcode.DICOM)

        def parts() -> Iterator[bytes]:
            for one, syntax in zip(found, syntaxes, strict=True):
                yield writer.begin(f"{transcode.DICOM}; transfer-syntax={syntax}")
                yield from self._pieces(one, syntax)
                yield writer.end
            yield writer.close

        return _multipart(parts(), writer)

    def metadata(self, found: Sequence[ObjectFound], root: str, study_uid: str) -> Response:
        """A JSON array, made as it is sent."""

        def text() -> Iterator[bytes]:
            before = b"["
            for one in found:
                yield before + dumps(self._metadata(one, url_of(root, study_uid, one)))
                before = b","
            yield b"]"

        return StreamingResponse(text(), headers={"Content-Type": JSON})

    def bulk(self, one: ObjectFound, place: str, accepts: Sequence[MediaType]) -> Response:
        """A value that metadata left out; pixel data are all frames."""
        opened = self._web.open(one)
        if place.upper() in {f"{tag:08X}" for tag in PIXEL_TAGS}:
            if opened.pixel_tag is None or f"{opened.pixel_tag:08X}" != place.upper():
                raise NotThere("the instance has no such pixel data")
            return self.frames(one, list(range(1, opened.frames + 1)), accepts)
        form = negotiation.frame_form(accepts, "1.2.840.10008.1.2.1", one=True)
        value = json_model.bulk_value(opened, place)
        return _parts(iter((value,)), form)

    def frames(
        self, one: ObjectFound, numbers: list[int], accepts: Sequence[MediaType]
    ) -> Response:
        """Frames, numbered from 1."""
        opened = self._web.open(one)
        frames.check_numbers(opened, numbers)
        form = negotiation.frame_form(accepts, one.transfer_syntax_uid, one=len(numbers) == 1)
        # the first is made before the answer begins: what cannot be made is 406, not a broken body
        first = self._frame(one, opened, numbers[0], form)

        def every() -> Iterator[bytes]:
            yield first
            for number in numbers[1:]:
                yield self._frame(one, opened, number, form)

        return _parts(every(), form)

    def rendered(
        self,
        one: ObjectFound,
        number: int | None,
        accepts: Sequence[MediaType],
        params: Mapping[str, str],
        *,
        thumbnail: bool = False,
    ) -> Response:
        """A picture of a frame; without a number, of the middle one."""
        media_type = negotiation.picture_type(accepts)
        look = rendering.look(params)
        if thumbnail and look.size is None:
            look = rendering.Look(look.window, (rendering.THUMBNAIL,) * 2, look.quality)
        opened = self._web.open(one)
        if not opened.frames:
            raise Undecodable("this is no image; no picture can be made of it")
        number = number or (opened.frames + 1) // 2
        frames.check_numbers(opened, [number])
        path = self._web.file(one)
        if frames.is_native(one.transfer_syntax_uid):
            with self._decoding:
                content = rendering.picture(path, opened, number, media_type, look)
        else:
            content = self._decoder.run(decoding.picture, path, number, media_type, look)
        return Response(content, media_type=media_type)

    def _metadata(self, one: ObjectFound, url: str) -> dict[str, Any]:
        try:
            return json_model.metadata(self._web.open(one), url)
        except (OSError, WebRequestError) as error:
            # one that cannot be read does not hide the others
            log.warning("metadata_unreadable", error_type=type(error).__name__)
            return json_model.elements(
                {
                    "SOPClassUID": one.sop_class_uid,
                    "SOPInstanceUID": one.sop_uid,
                    "SeriesInstanceUID": one.series_uid,
                }
            )

    def _pieces(self, one: ObjectFound, syntax: str) -> Iterator[bytes]:
        path = self._web.file(one)
        if syntax == one.transfer_syntax_uid:
            yield from transcode.pieces(path, syntax, syntax)
            return
        if frames.is_native(one.transfer_syntax_uid):
            yield transcode.explicit_little(path)
        else:
            yield self._decoder.run(decoding.explicit_little, path)

    def _frame(self, one: ObjectFound, opened: Opened, number: int, form: FrameForm) -> bytes:
        path = self._web.file(one)
        if not form.decoded:
            return frames.stored_frame(path, opened, number)
        if not frames.is_native(one.transfer_syntax_uid):
            return self._decoder.run(decoding.frame, path, number)
        with self._decoding:
            return frames.decoded_frame(path, opened, number)


def representative(found: Sequence[ObjectFound]) -> ObjectFound:
    """The instance that stands for a series or a study: the middle of its largest image series.

    Raises:
        Undecodable: nothing of it is an image.
    """
    images = [one for one in found if one.modality not in _NO_IMAGES]
    received = [one for one in images if one.place == SPOOL] or images
    if not received:
        raise Undecodable("there is no image; no picture can be made of it")
    ((largest, _),) = Counter(one.series_uid for one in received).most_common(1)
    series = [one for one in received if one.series_uid == largest]
    return series[len(series) // 2]


def url_of(root: str, study_uid: str, one: ObjectFound) -> str:
    """URL of an instance."""
    return f"{root}/studies/{study_uid}/series/{one.series_uid}/instances/{one.sop_uid}"


def dumps(value: Any) -> bytes:
    """JSON; numbers that JSON does not have are written as the standard says (PS3.18 F.2.3)."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(_plain(value), separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def _parts(values: Iterator[bytes], form: FrameForm) -> Response:
    content_type = form.media_type
    if form.transfer_syntax:
        content_type += f"; transfer-syntax={form.transfer_syntax}"
    if form.single:
        return Response(next(values), headers={"Content-Type": content_type})
    writer = Writer(form.media_type)

    def parts() -> Iterator[bytes]:
        for value in values:
            yield writer.begin(content_type)
            yield value
            yield writer.end
        yield writer.close

    return _multipart(parts(), writer)


def _multipart(parts: Iterator[bytes], writer: Writer) -> Response:
    return StreamingResponse(parts, headers={"Content-Type": writer.content_type})


__all__ = ["OCTETS", "Retrieve", "dumps", "representative", "url_of"]
