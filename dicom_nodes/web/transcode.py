"""A stored instance in a transfer syntax clients read: as stored, or explicit little endian."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_nodes.presentation import EXPLICIT_LITTLE
from dicom_nodes.web import frames
from dicom_nodes.web.errors import NotAcceptable, Undecodable
from dicom_nodes.web.media import ANY_SYNTAX, MediaType

DICOM = "application/dicom"
_PIECE_BYTES = 1 << 18
_UID = re.compile(r"[0-9.]{1,64}")


def syntax_for(stored: str, wanted: MediaType) -> str:
    """The transfer syntax to answer in.

    Without a wish that is explicit VR little endian (PS3.18 8.7.3.5.2), except for what cannot be
    decoded here: that goes as it is stored.

    Raises:
        NotAcceptable: a syntax is wished for that cannot be made.
    """
    wish = wanted.transfer_syntax
    if wish in (ANY_SYNTAX, stored):
        return stored
    if wish and wish != EXPLICIT_LITTLE:
        shown = wish if _UID.fullmatch(wish) else "that"
        raise NotAcceptable(
            f"transfer syntax {shown} cannot be made; ask for * (as stored) or {EXPLICIT_LITTLE}"
        )
    if frames.is_native(stored) or frames.is_decodable(stored):
        return EXPLICIT_LITTLE
    if wish:
        raise NotAcceptable("an instance cannot be decoded here; ask for transfer-syntax=*")
    return stored


def pieces(path: Path, stored: str, answer: str) -> Iterator[bytes]:
    """The bytes of the file, in pieces, in one of the two syntaxes of `syntax_for`.

    Raises:
        OSError: the file is gone.
        Undecodable: it cannot be decoded after all.
    """
    if answer == stored:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                yield piece
        return
    yield explicit_little(path)


def explicit_little(path: Path) -> bytes:
    """The whole instance decoded to explicit VR little endian.

    Raises:
        Undecodable: no decoder can.
    """
    try:
        dataset = pydicom.dcmread(path)
        syntax = UID(dataset.file_meta.TransferSyntaxUID)
        if syntax.is_encapsulated and "PixelData" in dataset:
            dataset.decompress(generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        target = io.BytesIO()
        dataset.save_as(target, enforce_file_format=True, implicit_vr=False, little_endian=True)
    except OSError:
        raise
    except Exception as error:  # decoders fail in many ways, and quote what they read
        raise Undecodable(f"the instance cannot be decoded ({type(error).__name__})") from error
    return target.getvalue()
