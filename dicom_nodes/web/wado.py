"""WADO-RS: instances from a DICOMweb server, as it stores them."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_nodes.web.peer import DicomWebPeer, connect

#: (media type, transfer syntax): whatever it is stored in, nothing transcoded for us.
_AS_STORED = (("application/dicom", "*"),)


def retrieve(
    peer: DicomWebPeer, study_uid: str, series_uid: str | None = None
) -> Iterator[Dataset]:
    """The instances of a study (or one series), one after the other as they arrive.

    Raises:
        NodeError: the request failed; instances yielded before are whole.
    """
    with connect(peer) as client:
        if series_uid:
            yield from client.iter_series(study_uid, series_uid, media_types=_AS_STORED)
        else:
            yield from client.iter_study(study_uid, media_types=_AS_STORED)
