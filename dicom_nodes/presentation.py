"""Which SOP classes and transfer syntaxes we take, and in which order we prefer them."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import (
    ALL_TRANSFER_SYNTAXES,
    AllStoragePresentationContexts,
    build_context,
)
from pynetdicom.presentation import PresentationContext

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

#: The acceptor's order decides which of the offered syntaxes is used: what every reader reads
#: first, lossless before lossy, big endian last.
_PREFERRED = (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    DEFLATED,
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, selection value 1
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
)
TRANSFER_SYNTAXES: tuple[str, ...] = (
    *_PREFERRED,
    *(str(uid) for uid in ALL_TRANSFER_SYNTAXES if str(uid) not in {*_PREFERRED, EXPLICIT_BIG}),
    EXPLICIT_BIG,
)

_STORAGE_CLASSES = frozenset(str(cx.abstract_syntax) for cx in AllStoragePresentationContexts)
_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."


def is_storage(sop_class: str) -> bool:
    """Say whether we keep instances of this class: any storage class, known, private or new.

    A PACS forwards whole studies; refusing one class makes some senders fail all of it.
    """
    if sop_class in _STORAGE_CLASSES or not sop_class.startswith(_DICOM_ROOT):
        return True
    return sop_class.startswith(_STORAGE_ROOT) and sop_class not in UID_dictionary


def is_known_storage(sop_class: str) -> bool:
    """Say whether pynetdicom itself knows `sop_class` as a storage class."""
    return sop_class in _STORAGE_CLASSES


def choose_syntax(offered: Sequence[str]) -> str | None:
    """Return the transfer syntax to accept, or None when we know none of those offered."""
    if len(offered) == 1:
        return offered[0] if offered[0] in _RANK else None
    known = [syntax for syntax in offered if syntax in _RANK]
    return min(known, key=_RANK.__getitem__, default=None)


def supported_contexts(sop_classes: Sequence[str]) -> list[PresentationContext]:
    """Return pynetdicom contexts that accept these classes in every syntax we know."""
    syntaxes: list[str | UID] = list(TRANSFER_SYNTAXES)
    return [build_context(sop_class, syntaxes) for sop_class in sop_classes]


_RANK = {syntax: rank for rank, syntax in enumerate(TRANSFER_SYNTAXES)}
