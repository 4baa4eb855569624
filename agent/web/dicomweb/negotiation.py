"""Which form of an answer a client gets (PS3.18 section 8.7): pure decisions over Accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_nodes.presentation import EXPLICIT_LITTLE
from dicom_nodes.web import frames
from dicom_nodes.web.errors import NotAcceptable
from dicom_nodes.web.frames import OCTETS
from dicom_nodes.web.media import ANY_SYNTAX, MediaType
from dicom_nodes.web.rendering import FORMATS, JPEG
from dicom_nodes.web.transcode import DICOM

_ANY = frozenset({"", "*/*"})
_JSON = frozenset({"*/*", "application/*", "application/dicom+json", "application/json"})
#: Older names of the media types of compressed frames.
_ALIASES = {"image/x-jls": "image/jls", "image/x-dicom-rle": "image/dicom-rle"}


@dataclass(frozen=True)
class FrameForm:
    """How frames are answered.

    Attributes:
        decoded: to little endian, else as stored.
        single: one frame, without multipart around it.
    """

    media_type: str
    transfer_syntax: str
    decoded: bool
    single: bool = False


def want_json(accepts: Sequence[MediaType]) -> None:
    """Refuse clients that read no DICOM JSON.

    Raises:
        NotAcceptable: such a client.
    """
    if not any(media.name in _JSON for media in accepts):
        raise NotAcceptable("this answer is made as application/dicom+json only")


def dicom_form(accepts: Sequence[MediaType], *, one: bool) -> tuple[MediaType, bool]:
    """The range that application/dicom answers to, and whether without multipart around it.

    Raises:
        NotAcceptable: there is none.
    """
    for media in accepts:
        if media.is_multipart and media.part in {DICOM, *_ANY}:
            return media, False
        if media.name == "*/*":
            return media, False
        if media.name in {DICOM, "application/*"} and one:
            return media, True
    raise NotAcceptable(f'instances are made as multipart/related; type="{DICOM}" only')


def frame_form(accepts: Sequence[MediaType], stored: str, *, one: bool) -> FrameForm:
    """How frames of a stored transfer syntax are answered.

    Raises:
        NotAcceptable: nothing that is asked for can be made.
    """
    native = frames.is_native(stored)
    decodable = native or frames.is_decodable(stored)
    as_stored = frames.MEDIA_TYPES.get(stored, OCTETS)
    for media in accepts:
        single = not media.is_multipart and media.name != "*/*"
        if single and not one:
            continue
        kind = media.part if media.is_multipart else media.name
        kind = _ALIASES.get(kind, kind)
        wish = media.transfer_syntax
        if kind in {OCTETS, "application/*", *_ANY}:
            if wish == ANY_SYNTAX and not native:
                return FrameForm(OCTETS if kind == OCTETS else as_stored, stored, False, single)
            if decodable and wish in {"", ANY_SYNTAX, EXPLICIT_LITTLE}:
                return FrameForm(OCTETS, EXPLICIT_LITTLE, True, single)
            if not native and (wish == stored or (not wish and kind in _ANY)):
                return FrameForm(as_stored, stored, False, single)
        elif not native and kind in {as_stored, "image/*"} and wish in {"", ANY_SYNTAX, stored}:
            return FrameForm(as_stored, stored, False, single)
    raise NotAcceptable(
        f"frames are made as {OCTETS} (decoded), or as stored with transfer-syntax=*"
    )


def picture_type(accepts: Sequence[MediaType]) -> str:
    """PNG or JPEG.

    Raises:
        NotAcceptable: neither is asked for.
    """
    for media in accepts:
        if media.name in FORMATS:
            return media.name
        if media.name in {"*/*", "image/*"}:
            return JPEG
    raise NotAcceptable("pictures are made as image/jpeg and image/png only")
