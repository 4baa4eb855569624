"""QIDO-RS and WADO-RS by raw requests: matching, paging, forms that cannot be made, who may ask."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from factories import dicom, dicom_compressed, dicom_enhanced, dicomweb, rows
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from db.models import Study

NUMBER = 12


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dicomweb.Server]:
    """Twelve studies without images: the even ones of women, every third one MR."""
    with dicomweb.serving(tmp_path_factory.mktemp("many"), order="reading", max_results=10) as it:
        with it.sessions.begin() as session:
            for n in range(1, NUMBER + 1):
                modality = "MR" if n % 3 == 0 else "CT"
                study = rows.study(
                    session,
                    number=n,
                    modalities=modality,
                    study_date=f"202611{n:02d}",
                    study_time=f"08{n:02d}00",
                    description=f"{modality} 100% HEAD_{n}",
                    first_instance_at=rows.minutes_ago(100 - n),
                    priority="STAT" if n == 7 else "",
                )
                rows.series(session, study, modality=modality)
        yield it


def found(server: dicomweb.Server, query: str) -> list[int]:
    """Numbers of the studies that a query finds."""
    answer = server.get(f"/studies?{query}")
    assert answer.status == 200, answer.body
    return [int(one["00100020"]["Value"][0].removeprefix("PAT")) for one in answer.json()]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("PatientID=PAT0003", {3}),
        ("00100020=PAT000*", set(range(1, 10))),
        ("PatientID=pat0003", set()),
        ("AccessionNumber=ACC000%3F&PatientSex=F", {1, 3, 5, 7, 9}),
        ("PatientName=example%5Epatient1*", {1, 10, 11, 12}),
        ("StudyDate=20261103-20261105", {3, 4, 5}),
        ("StudyDate=-20261102", {1, 2}),
        ("StudyDate=20261111-", {11, 12}),
        ("StudyDate=20261104", {4}),
        ("StudyTime=0803-0804", {3, 4}),
        ("ModalitiesInStudy=MR", {3, 6, 9, 12}),
        ("ModalitiesInStudy=MR%5CPT&StudyDate=20261101-20261106", {3, 6}),
        ("StudyInstanceUID=2.25.1002,2.25.1005", {2, 5}),
        ("0020000D=2.25.1002%5C2.25.1005", {2, 5}),
        ("StudyDescription=*head_3*", {3}),
        ("StudyDescription=*100%25*&limit=3", {7, 1, 2}),
        ("RequestedProcedurePriority=STAT", {7}),
        ("PatientID=&PatientName=*&limit=2", {7, 1}),
        ("PatientID=%27%20OR%201%3D1%20--", set()),
    ],
)
def test_keys_match_as_the_standard_says(
    many: dicomweb.Server, query: str, numbers: set[int]
) -> None:
    """Single values, wildcards, ranges, lists and universal matching."""
    assert set(found(many, query)) == numbers


def test_pages_follow_the_worklist_order(many: dicomweb.Server) -> None:
    """With order = "reading" the urgent study leads, and pages neither repeat nor lose one."""
    pages = [found(many, f"limit=5&offset={start}") for start in (0, 5, 10)]

    everybody = [n for page in pages for n in page]
    assert everybody[0] == 7
    assert sorted(everybody) == list(range(1, NUMBER + 1))
    assert found(many, "limit=5&PatientName=*&PatientSex=F")[0] == 7


def test_the_client_is_told_of_more_and_of_what_was_ignored(many: dicomweb.Server) -> None:
    """The limit of the server holds; Warning says so, and that fuzzy matching is not done."""
    cut = many.get("/studies?limit=100&fuzzymatching=true")
    whole = many.get("/studies?offset=10")

    assert len(cut.json()) == 10
    assert "additional results" in cut.headers["warning"]
    assert "fuzzymatching" in cut.headers["warning"]
    assert "warning" not in whole.headers


@pytest.mark.parametrize(
    "query",
    ["ReferringPhysicianName=x", "Modality=CT", "nonsense=1", "limit=many", "StudyDate=yesterday"],
)
def test_keys_that_cannot_be_matched_are_refused(many: dicomweb.Server, query: str) -> None:
    """To ignore a key would answer with other patients' studies."""
    answer = many.get(f"/studies?{query}")

    assert answer.status == 400
    assert "detail" in answer.json()


def test_the_number_of_queries_does_not_grow_with_the_page(many: dicomweb.Server) -> None:
    """One study or ten take the same number of statements."""
    counts = []
    for limit in (1, 10):
        statements: list[str] = []

        def note(*args: object, seen: list[str] = statements) -> None:
            seen.append(str(args[2]))

        bind = many.sessions.kw["bind"]
        sa.event.listen(bind, "before_cursor_execute", note)
        many.get(f"/studies?limit={limit}&PatientName=*")
        sa.event.remove(bind, "before_cursor_execute", note)
        counts.append(len(statements))

    assert counts[0] == counts[1]


def test_series_and_instances_are_found_across_studies(
    filled: dicomweb.Server, ct: list[Dataset]
) -> None:
    """Below the root, series and instance level answers carry their study's identity."""
    uid = ct[2].SOPInstanceUID

    (series,) = filled.get("/series?Modality=SR&PatientID=PAT1").json()
    (instance,) = filled.get(f"/instances?SOPInstanceUID={uid}&includefield=SliceThickness").json()

    assert series["00100010"]["Value"][0]["Alphabetic"] == "Test^Patient1"
    assert instance["0020000D"]["Value"] == [ct[2].StudyInstanceUID]
    assert instance["00180050"]["Value"] == [5]
    assert filled.get("/instances?InstanceNumber=2&Modality=CT").json()[0]["00200013"]


def test_included_fields_are_those_of_the_level(filled: dicomweb.Server, ct: list[Dataset]) -> None:
    """Includefield brings what was asked for; all brings what the level has."""
    study = f"/studies/{ct[0].StudyInstanceUID}"

    plain, some, every = (
        filled.get(f"{study}/series?Modality=CT{more}").json()[0]
        for more in ("", "&includefield=00080070,ProtocolName", "&includefield=all")
    )

    assert "00080070" not in plain
    assert (some["00080070"]["Value"], some["00181030"]["Value"]) == (["Example"], ["HEAD"])
    assert {"00080070", "00181030", "00100020"} <= set(every)


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("", "application/dicom", 406),
        ("", 'multipart/related; type="application/dicom+xml"', 406),
        ("", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.3', 406),
        ("/metadata", "application/dicom+xml", 406),
        ("/thumbnail", "image/gif", 406),
        ("/series/{series}/instances/{sop}/frames/1", 'multipart/related; type="image/jls"', 406),
        ("/series/{series}/instances/{sop}/frames/2", "*/*", 404),
        ("/series/{series}/instances/{sop}/frames/0", "*/*", 404),
        ("/series/{series}/instances/{sop}/frames/x", "*/*", 400),
        ("/series/{series}/instances/{sop}/rendered?window=wide", "image/png", 400),
        ("/series/{series}/instances/{sop}/rendered?viewport=9,9,1,1,2,2", "image/png", 400),
        ("/series/{series}/instances/{sop}/bulkdata/00100010", "*/*", 404),
        ("/series/{series}/instances/{sop}/bulkdata/../../x", "*/*", 404),
        ("/series/{series}/instances/1.2.3", "*/*", 404),
        ("/series/1.2.3", "*/*", 404),
        ("/series/{series}/metadata", "application/dicom+json", 200),
    ],
)
def test_what_cannot_be_made_is_said(
    filled: dicomweb.Server, ct: list[Dataset], path: str, accept: str, status: int
) -> None:
    """Forms that cannot be made are 406, what is not there 404, nonsense 400."""
    place = path.format(series=ct[0].SeriesInstanceUID, sop=ct[0].SOPInstanceUID)

    answer = filled.get(f"/studies/{ct[0].StudyInstanceUID}{place}", accept)

    assert answer.status == status, answer.body[:300]


def test_a_report_has_no_picture(filled: dicomweb.Server, ct: list[Dataset]) -> None:
    """Of an SR neither frames nor pictures are made."""
    study = str(ct[0].StudyInstanceUID)
    (report,) = filled.get(f"/studies/{study}/series?Modality=SR").json()
    path = f"/studies/{study}/series/{report['0020000E']['Value'][0]}"

    assert filled.get(f"{path}/rendered", "image/png").status == 406


def test_frames_of_a_multi_frame_image_come_one_by_one(server: dicomweb.Server) -> None:
    """Frames are numbered from 1, in the order asked for."""
    source = dicom.ct_series(n=3, rows=8, cols=8, patient="frames")
    ds = dicom_enhanced.enhanced(source)
    server.stow(dicomweb.body([ds]))

    frames = server.client().retrieve_instance_frames(
        str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID), [3, 1]
    )

    assert frames == [source[2].PixelData, source[0].PixelData]


def test_pixels_that_do_not_decode_are_406(server: dicomweb.Server) -> None:
    """A damaged codestream is not decoded, and still handed on as it is stored."""
    (source,) = dicom.ct_series(n=1, rows=64, cols=64, patient="damaged")
    ds = dicom_compressed.compress(source, JPEG2000Lossless)
    content = bytearray(dicomweb.file_of(ds))
    at = content.find(b"\xff\x4f\xff\x51")
    content[at + 4 : at + 60] = b"\xff" * 56
    server.stow(dicomweb.body([bytes(content)]))
    path = (
        f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}"
    )

    octets = "multipart/related; type=application/octet-stream"
    assert server.get(f"{path}/frames/1", octets).status == 406
    assert server.get(f"{path}/rendered", "image/png").status == 406
    assert server.get(f"{path}/frames/1", f"{octets}; transfer-syntax=*").status == 200


def test_viewers_of_other_origins_ask_only_when_listed(filled: dicomweb.Server) -> None:
    """CORS: the listed origin is let in, preflight included; others get no such header."""
    preflight = {"Access-Control-Request-Method": "GET"}

    listed = {"Origin": "https://viewer.example"}
    asked = filled.request("OPTIONS", "/studies", headers=listed | preflight)
    answered = filled.request("GET", "/studies", headers=listed)
    other = filled.request("GET", "/studies", headers={"Origin": "https://evil.example"})

    assert asked.headers["access-control-allow-origin"] == "https://viewer.example"
    assert answered.headers["access-control-allow-origin"] == "https://viewer.example"
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("method", "role", "status"),
    [
        ("GET", "nobody", 401),
        ("GET", "viewer", 200),
        ("POST", "viewer", 403),
        ("POST", "nobody", 401),
        ("POST", "service", 400),
    ],
)
def test_looking_is_for_viewers_and_storing_for_machines(
    server: dicomweb.Server, method: str, role: str, status: int
) -> None:
    """Whoever is not known is told so; a viewer cannot store."""
    kind = f'multipart/related; type="application/dicom"; boundary="{dicomweb.BOUNDARY}"'
    headers = {"x-role": role, "Content-Type": kind}
    body = dicomweb.CLOSE if method == "POST" else None

    assert server.request(method, "/studies", body, headers).status == status


def test_every_resource_asks_who_it_is(server: dicomweb.Server) -> None:
    """No path below /dicom-web answers somebody who is not known."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    ours = [
        (method.upper(), re.sub(r"{\w+}", "1", path.removeprefix("/dicom-web")))
        for path, methods in paths.items()
        if path.startswith("/dicom-web/")
        for method in methods
    ]

    statuses = {
        one: server.request(*one, b"" if one[0] == "POST" else None, {"x-role": "nobody"}).status
        for one in ours
    }

    assert len(ours) > 20
    assert set(statuses.values()) == {401}


def test_retention_takes_a_study_away(server: dicomweb.Server) -> None:
    """When files are gone before their rows, the answer is 404 and not a broken body."""
    (ds,) = dicom.ct_series(n=1, rows=8, cols=8, patient="gone")
    server.stow(dicomweb.body([ds]))
    for path in server.spool.glob(f"{ds.StudyInstanceUID}/*/*.dcm"):
        path.unlink()
    path = f"/studies/{quote(ds.StudyInstanceUID)}/series/{ds.SeriesInstanceUID}"

    answer = server.get(f"{path}/instances/{ds.SOPInstanceUID}/frames/1", "*/*")

    assert answer.status == 404
    with server.sessions() as session:
        assert session.scalars(sa.select(Study).filter_by(study_uid=ds.StudyInstanceUID)).first()
