"""A DICOMweb server: STOW-RS for results, QIDO-RS for identity, counts and the check."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from agent.settings import Destination
from dicom_nodes.answers import HeldObjects, HeldStudy
from dicom_nodes.web import qido, stow
from dicom_nodes.web.peer import DicomWebPeer


@dataclass(frozen=True)
class DicomWebChannel:
    """Speaks to one ``kind = "dicomweb"`` destination."""

    peer: DicomWebPeer

    @classmethod
    def of(cls, destination: Destination) -> DicomWebChannel:
        """The channel for a configured destination."""
        return cls(
            DicomWebPeer(
                url=destination.url,
                username=destination.username,
                password_file=destination.password_file,
                token_file=destination.token_file,
                ca=destination.ca,
                timeout_s=destination.timeout_s,
            )
        )

    def send(self, path: Path) -> None:
        """STOW one instance."""
        (outcome,) = stow.store(self.peer, [path])
        outcome.raise_for_error()

    def held_study(self, study_uid: str) -> HeldStudy | None:
        """QIDO at study level."""
        return qido.held_study(self.peer, study_uid)

    def count_instances(self, study_uid: str, exclude_series: Collection[str] = ()) -> int | None:
        """QIDO for the count of instances."""
        return qido.count_instances(self.peer, study_uid, exclude_series)

    def held_objects(self, study_uid: str, series_uids: Collection[str]) -> HeldObjects:
        """QIDO at study and instance level."""
        return qido.held_objects(self.peer, study_uid, series_uids)

    def check(self) -> None:
        """QIDO for at most one study."""
        qido.probe(self.peer)
