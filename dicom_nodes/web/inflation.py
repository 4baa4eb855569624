"""Deflated datasets: how large they become, before a parser inflates all of one into memory."""

from __future__ import annotations

import zlib
from pathlib import Path

from dicom_nodes.presentation import DEFLATED
from dicom_nodes.web import part10
from dicom_nodes.web.errors import TooLarge, Undecodable

MAX_INFLATED_BYTES = 1 << 30
_PIECE_BYTES = 1 << 20


def check_inflation(path: Path) -> None:
    """Refuse a deflated file that would take too much memory; others pass at once.

    Raises:
        OSError: the file is gone.
        TooLarge: it would.
        Undecodable: it is not deflated, though it says so.
    """
    with path.open("rb") as stream:
        try:
            meta = part10.read_meta(stream.read(part10.MAX_META_BYTES))
        except part10.NotPart10:
            return  # a parser will say more of it
        if meta is None or meta.transfer_syntax_uid != DEFLATED:
            return
        stream.seek(meta.dataset_offset)
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            while piece := inflater.unconsumed_tail or stream.read(_PIECE_BYTES):
                size += len(inflater.decompress(piece, _PIECE_BYTES))
                if size > MAX_INFLATED_BYTES:
                    raise TooLarge("the instance would inflate beyond the limit")
        except zlib.error as error:
            raise Undecodable("the instance is no deflated dataset") from error
