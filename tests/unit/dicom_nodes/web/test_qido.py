"""QIDO-RS as client: counts and identity, and poor answers that are not believed."""

from __future__ import annotations

from typing import Any

import pytest
from factories import http
from pydicom.dataset import Dataset

from dicom_nodes.answers import HeldStudy
from dicom_nodes.errors import PeerRefused
from dicom_nodes.web.peer import DicomWebPeer
from dicom_nodes.web.qido import count_instances, find_studies, held_study, probe


def match(**tags: Any) -> dict[str, Any]:
    """One match in DICOM JSON."""
    ds = Dataset()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds.to_json_dict()


STUDY = match(
    StudyInstanceUID="1.2.3",
    PatientID="P1 ",
    AccessionNumber="A1",
    NumberOfStudyRelatedInstances=5,
)
SERIES = [
    match(SeriesInstanceUID="1.2.3.1", NumberOfSeriesRelatedInstances=4),
    match(SeriesInstanceUID="1.2.3.2", NumberOfSeriesRelatedInstances=1),
]


def archive(request: http.Request) -> http.Answer:
    """Holds the one study."""
    return http.Answer(200, SERIES if "/series" in request.path else [STUDY])


def test_the_count_leaves_out_our_own_series() -> None:
    """The study's own count without exclusions, the series' sum with them."""
    with http.serving(archive) as server:
        peer = DicomWebPeer(server.url)
        assert count_instances(peer, "1.2.3") == 5
        assert count_instances(peer, "1.2.3", ["1.2.3.2"]) == 4


@pytest.mark.parametrize("content", [b"", [], [match(StudyInstanceUID="1.9")]])
def test_an_unknown_study_has_neither_count_nor_identity(content: Any) -> None:
    """No content, no match, and a match for another study are all the same."""
    with http.serving(lambda r: http.Answer(200, [] if "series" in r.path else content)) as server:
        peer = DicomWebPeer(server.url)
        assert count_instances(peer, "1.2.3") is None
        assert held_study(peer, "1.2.3") is None


def test_the_held_identity_comes_without_padding() -> None:
    """What the server did not say is None, not empty."""
    with http.serving(archive) as server:
        assert held_study(DicomWebPeer(server.url), "1.2.3") == HeldStudy("P1", None, "A1")


def test_a_page_that_is_no_dicomweb_is_refused() -> None:
    """A portal that answers 200 to everything is told from an archive without studies."""
    for content, content_type in ((b"<html>Welcome</html>", "text/html"), (["x"], "text/json")):
        answer = http.Answer(200, content, content_type)
        with http.serving(lambda _, a=answer: a) as server:
            peer = DicomWebPeer(server.url)
            with pytest.raises(PeerRefused, match="not DICOM JSON"):
                find_studies(peer, PatientID="P1")
            with pytest.raises(PeerRefused, match="not DICOM JSON"):
                probe(peer)
