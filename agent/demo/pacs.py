"""The embedded PACS: a small archive that keeps files and answers C-ECHO, STORE, FIND and MOVE.

For the demo and for tests; it knows no users, no encryption and no corrections.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, _config, build_context, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import time
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from agent.demo.pacs_index import Held, PacsIndex

log = structlog.get_logger(__name__)

# identifiers name patients: never logged
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.LOG_HANDLER_LEVEL = "none"

#: Few, because pynetdicom pays for every pair of context and syntax at each association.
TRANSFER_SYNTAXES: list[str | UID] = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    RLELossless,
]
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MODELS = {
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
}

_SUCCESS, _PENDING, _CANCEL = 0x0000, 0xFF00, 0xFE00
_UNABLE_TO_PROCESS, _DESTINATION_UNKNOWN, _CANNOT_UNDERSTAND = 0xC000, 0xA801, 0xC100


class EmbeddedPacs:
    """An archive over one directory: every SOP Instance UID is one file, however often it is sent.

    Args:
        directory: where files lie (study/series/instance.dcm); read again at every start.
        destinations: AE title -> (host, port) of those C-MOVE may send to.
        port: 0 = any free one; the same again after a restart.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ae_title: str = "DEMOPACS",
        host: str = "127.0.0.1",
        port: int = 0,
        destinations: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        self.directory = directory
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self.destinations = dict(destinations or {})
        self._index = PacsIndex()
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> EmbeddedPacs:
        """Read what lies in the directory and listen; `port` is known afterwards."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.directory.glob("*/*/*.dcm")):
            self._read(path)
        entity = AE(ae_title=self.ae_title)
        entity.maximum_pdu_size = 131072
        entity.maximum_associations = 64
        entity.supported_contexts = [
            build_context(Verification),
            *(build_context(model) for model in _MODELS),
            *(
                build_context(str(c.abstract_syntax), TRANSFER_SYNTAXES)
                for c in AllStoragePresentationContexts
            ),
        ]
        server = cast(
            "ThreadedAssociationServer",  # None only for blocking servers
            entity.start_server((self.host, self.port), block=False, evt_handlers=self._handlers()),
        )
        self._server = server
        self.port = int(server.server_address[1])
        return self

    def stop(self) -> None:
        """Stop listening and end the associations; files stay."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def __enter__(self) -> EmbeddedPacs:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def objects(self, study_uid: str | None = None) -> list[Held]:
        """What it holds of a study (of all studies), in SOP Instance UID order."""
        return self._index.objects(study_uid)

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, _without_delay),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_MOVE, self._on_move),
        ]

    def _on_store(self, event: Any) -> int:
        try:
            ds = event.dataset
            held = Held.from_dataset(ds, self._path(ds), str(event.context.transfer_syntax))
        except (AttributeError, ValueError) as error:
            log.warning("demo_pacs_refused_instance", cause=type(error).__name__)
            return _UNABLE_TO_PROCESS
        if not held.path.is_file():  # a repeated instance is discarded, the first one kept
            _write(held.path, event.encoded_dataset())
        self._index.add(held)
        return _SUCCESS

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        try:
            answers = self._index.find(event.identifier)
        except (AttributeError, ValueError):
            yield _CANNOT_UNDERSTAND, None
            return
        for answer in answers:
            if event.is_cancelled:
                yield _CANCEL, None
                return
            answer.RetrieveAETitle = self.ae_title
            yield _PENDING, answer

    def _on_move(self, event: Any) -> Iterator[Any]:
        address = self.destinations.get(str(event.move_destination).strip())
        if address is None:
            yield None, None  # pynetdicom answers 0xA801, destination unknown
            return
        chosen = self._index.select(event.identifier)
        contexts = {(h.sop_class_uid, h.transfer_syntax_uid) for h in chosen}
        yield (
            *address,
            {
                "ae_title": str(event.move_destination).strip(),
                "contexts": [build_context(*context) for context in sorted(contexts)][:128],
            },
        )
        yield len(chosen)
        for held in chosen:
            if event.is_cancelled:
                yield _CANCEL, None
                return
            yield _PENDING, dcmread(held.path)

    def _read(self, path: Path) -> None:
        try:
            ds = dcmread(path, stop_before_pixels=True)
            self._index.add(Held.from_dataset(ds, path, str(ds.file_meta.TransferSyntaxUID)))
        except (InvalidDicomError, AttributeError, ValueError) as error:
            log.warning("demo_pacs_skipped_file", cause=type(error).__name__)

    def _path(self, ds: Dataset) -> Path:
        uids = [str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)]
        if not all(_UID.fullmatch(uid) and len(uid) <= 64 for uid in uids):
            raise ValueError("UIDs become file names here; one is no UID")
        return self.directory / uids[0] / uids[1] / f"{uids[2]}.dcm"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _without_delay(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
