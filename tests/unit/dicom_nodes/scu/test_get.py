"""C-GET as user: images come on our own association; poor answers are errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pydicom
import pytest
from factories import dicom
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet,
)

from dicom_nodes.errors import NodeError, PeerBusy, PeerRefused, PeerUnavailable
from dicom_nodes.node import Node
from dicom_nodes.scu.get import get_series


@contextmanager
def get_scp(*images: Dataset, end: int | None = None) -> Iterator[Node]:
    """An archive that sends these images to whoever asks, then perhaps a status of its own."""
    entity = AE(ae_title="TESTSCP")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    entity.add_supported_context(MRImageStorage, scu_role=True, scp_role=True)
    entity.add_supported_context(MRImageStorage, JPEGLSLossless, scu_role=True, scp_role=True)

    def answer(_: Any) -> Iterator[Any]:
        yield len(images) or 1
        for image in images:
            yield 0xFF00, image
        if end is not None:
            yield end, None

    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_GET, answer)]
    )
    try:
        yield Node("TESTSCP", "127.0.0.1", server.server_address[1], timeout_s=5.0)
    finally:
        server.shutdown()


def test_images_come_as_part_10_files_in_the_syntax_they_are_stored_in() -> None:
    """Uncompressed and compressed ones on one association."""
    images = dicom.mr_series(2, 8, 8)
    images[1].file_meta.TransferSyntaxUID = JPEGLSLossless
    taken: list[bytes] = []
    with get_scp(*images) as node:
        get_series(node, "1.2", "1.3", [MRImageStorage], taken.append)
    read = [pydicom.dcmread(BytesIO(data)) for data in taken]
    assert [ds.SOPInstanceUID for ds in read] == [ds.SOPInstanceUID for ds in images]
    assert read[1].file_meta.TransferSyntaxUID == JPEGLSLossless


def test_what_the_taker_raises_ends_the_transfer() -> None:
    """The second image is not taken any more."""
    taken: list[bytes] = []

    def full(data: bytes) -> None:
        taken.append(data)
        raise OSError(28, "no space")

    with get_scp(*dicom.mr_series(3, 8, 8)) as node, pytest.raises(OSError, match="no space"):
        get_series(node, "1.2", "1.3", [MRImageStorage], full)
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("end", "kind"), [(0xA701, PeerBusy), (0xB000, PeerRefused), (0xC000, PeerRefused)]
)
def test_a_failure_is_not_taken_for_an_empty_series(end: int, kind: type[NodeError]) -> None:
    """Out of resources may pass; images that were left out are said."""
    with get_scp(end=end) as node, pytest.raises(kind, match="C-GET"):
        get_series(node, "1.2", "1.3", [MRImageStorage], lambda _data: None)


def test_a_peer_without_c_get_is_named_with_the_mend(node: Node) -> None:
    """It knows C-FIND and C-MOVE only."""
    with pytest.raises(PeerRefused, match="offers no C-GET"):
        get_series(node, "1.2", "1.3", [MRImageStorage], lambda _data: None)


def test_nobody_there_may_pass() -> None:
    """A closed port is a transient fault."""
    with get_scp() as node:
        pass
    with pytest.raises(PeerUnavailable):
        get_series(node, "1.2", "1.3", [MRImageStorage], lambda _data: None)
