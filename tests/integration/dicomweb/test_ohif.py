"""The requests that OHIF makes, replayed in their order; OHIF itself is not part of the tests.

From OHIF's dicomweb data source with the configuration of docs/integrate/ohif.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from factories import dicomweb
from pydicom.dataset import Dataset

ORIGIN = {"Origin": "https://viewer.example"}
JSON = ORIGIN | {"Accept": "application/dicom+json"}
FRAMES = ORIGIN | {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}


def test_a_study_opens_in_the_order_of_ohifs_requests(
    filled: dicomweb.Server, ct: list[Dataset]
) -> None:
    """List, series, metadata, frames, the report's file and a thumbnail, from a viewer's page."""
    listing = (
        "/studies?00100020=*PAT1*&ModalitiesInStudy=CT&limit=101&offset=0&fuzzymatching=false"
        "&includefield=00081030%2C00080060&StudyDate=20260101-20261231"
    )
    (study,) = _get(filled, listing)
    uid = study["0020000D"]["Value"][0]
    assert _values(study, "00100010", "00100020", "00080020", "00080050", "00081030", "00201208")
    assert study["00080061"]["Value"] == ["CT", "SR"]

    series = _get(
        filled, f"/studies/{uid}/series?includefield=00080021%2C00080031%2C0008103E%2C00200011"
    )
    assert [one["00080060"]["Value"][0] for one in series] == ["CT", "SR"]
    assert all(_values(one, "0020000E", "00201209", "00080021", "00200011") for one in series)

    images = _get(filled, f"/studies/{uid}/series/{series[0]['0020000E']['Value'][0]}/metadata")
    assert len(images) == len(ct)
    assert _values(images[0], "00280010", "00280011", "00083002", "00200032", "00281052")

    url = f"/studies/{uid}/series/{ct[0].SeriesInstanceUID}/instances/{ct[0].SOPInstanceUID}"
    frame = filled.request("GET", f"{url}/frames/1", headers=FRAMES)
    assert frame.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert ct[0].PixelData in frame.body
    assert b"application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1" in frame.body

    (report,) = _get(filled, f"/studies/{uid}/series/{series[1]['0020000E']['Value'][0]}/metadata")
    assert report["00080060"]["Value"] == ["SR"]

    thumbnail = filled.request("GET", f"{url}/thumbnail", headers=ORIGIN | {"Accept": "image/*"})
    assert thumbnail.body[:3] == b"\xff\xd8\xff"
    assert thumbnail.headers["cross-origin-resource-policy"] == "cross-origin"


def test_descriptions_are_marked_where_the_site_asks(tmp_path: Path, ct: list[Dataset]) -> None:
    """With mark_descriptions a viewer without further columns shows the priority."""
    with dicomweb.serving(tmp_path, mark_descriptions=True) as server:
        server.stow(dicomweb.body(ct[:1]))
        (study,) = server.get("/studies").json()
        (image,) = server.get(f"/studies/{ct[0].StudyInstanceUID}/metadata").json()

    assert study["00081030"]["Value"] == ["[MEDIUM] CT HEAD"]
    assert image["00081030"]["Value"] == ["CT HEAD"]


@pytest.mark.parametrize("key", ["qidoRoot", "wadoRoot"])
def test_the_documented_configuration_names_our_root(repository: Path, key: str) -> None:
    """The page shows the data source that these requests come from."""
    page = (repository / "docs" / "integrate" / "ohif.md").read_text(encoding="utf-8")

    assert re.search(rf"{key}: '[^']*/dicom-web'", page)


def _get(server: dicomweb.Server, path: str) -> list[dict[str, dict[str, object]]]:
    answer = server.request("GET", path, headers=JSON)
    assert answer.status == 200, answer.body
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    content: list[dict[str, dict[str, object]]] = json.loads(answer.body)
    return content


def _values(match: dict[str, dict[str, object]], *tags: str) -> bool:
    return all(match[tag]["Value"] for tag in tags)
