"""A DICOM node: C-STORE for results, C-FIND for identity and counts, C-ECHO as the check."""

from __future__ import annotations

import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from agent.settings import Destination, TlsSettings
from dicom_nodes import tls
from dicom_nodes.answers import HeldObjects, HeldStudy
from dicom_nodes.commitment import Report, Request
from dicom_nodes.node import Node
from dicom_nodes.scu import commitment, echo, find, store


@dataclass(frozen=True)
class DicomChannel:
    """Speaks to one ``kind = "dicom"`` destination."""

    destination: Destination
    calling_ae: str

    def send(self, path: Path) -> None:
        """C-STORE one instance."""
        (outcome,) = store.store(self._node(), [path])
        outcome.raise_for_error()

    def held_study(self, study_uid: str) -> HeldStudy | None:
        """C-FIND at study level."""
        return find.held_study(self._node(), study_uid)

    def count_instances(self, study_uid: str, exclude_series: Collection[str] = ()) -> int | None:
        """C-FIND for the count of instances."""
        return find.count_instances(self._node(), study_uid, exclude_series)

    def held_objects(self, study_uid: str, series_uids: Collection[str]) -> HeldObjects:
        """C-FIND at study and image level."""
        return find.held_objects(self._node(), study_uid, series_uids)

    def ask_commitment(self, request: Request) -> Report | None:
        """N-ACTION; the report may come on the same association or to our own node."""
        return commitment.ask(self._node(), request)

    def check(self) -> None:
        """C-ECHO."""
        echo.echo(self._node())

    def _node(self) -> Node:
        """The node; certificates are read at each use, because they are renewed under us."""
        return Node(
            ae_title=self.destination.ae_title or "",
            host=self.destination.host,
            port=self.destination.port,
            calling_ae=self.calling_ae,
            tls=tls_context(self.destination.tls),
            timeout_s=self.destination.timeout_s,
        )


def tls_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """The context for secure transport, or None where none is configured."""
    if settings == TlsSettings():
        return None
    return tls.client_context(settings.ca, settings.certificate, settings.key)
