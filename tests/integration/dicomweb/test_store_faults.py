"""STOW-RS when something is wrong: raw requests, and what is answered, stored and left behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from factories import dicom, dicomweb, peers
from factories.dicomweb import BOUNDARY, CLOSE, body, file_of, part, pieces
from pydicom.dataset import Dataset

JSON = "application/dicom+json"


def one(patient: str, **tags: object) -> Dataset:
    """One small image of a patient of its own."""
    return dicom.ct_series(n=1, rows=8, cols=8, patient=patient, **tags)[0]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dicomweb.Server]:
    """A server with small limits and no patience."""
    with dicomweb.serving(
        tmp_path_factory.mktemp("strict"),
        max_instance_mb=1,
        max_request_mb=2,
        max_uploads=1,
        idle_timeout_s=0.5,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dicomweb.Server]:
    """A server whose disk is nearly full."""
    with dicomweb.serving(tmp_path_factory.mktemp("full"), low_water_bytes=1 << 60) as running:
        yield running


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_pieces_of_any_size_make_the_same_study(server: dicomweb.Server, size: int) -> None:
    """A body sent in chunks, without Content-Length, is stored whole however it was cut."""
    ds = one(f"chunk{size}")

    answer = server.stow(iter(pieces(body([ds]), size)))

    assert (answer.status, answer.stored()) == (200, [str(ds.SOPInstanceUID)])


def test_an_image_of_another_study_fails_alone(server: dicomweb.Server) -> None:
    """What is posted to a study and is not of it is not kept; the rest is."""
    right, wrong = one("right"), one("wrong")

    answer = server.stow(body([right, wrong]), f"/studies/{right.StudyInstanceUID}")

    assert (answer.status, answer.stored()) == (202, [str(right.SOPInstanceUID)])
    assert answer.reasons() == {str(wrong.SOPInstanceUID): 0xA900}
    assert server.study(str(wrong.StudyInstanceUID)) is None


def test_the_same_image_again_is_success_and_changes_nothing(server: dicomweb.Server) -> None:
    """A repeated store is answered as stored; the spool holds one file."""
    ds = one("again")

    answers = [server.stow(body([ds])) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    study = server.study(str(ds.StudyInstanceUID))
    assert study is not None
    assert study.instance_count == 1


def test_a_dataset_that_is_not_what_its_meta_says_is_refused(server: dicomweb.Server) -> None:
    """File meta and dataset disagree: 0xA900, a copy in quarantine that is never served."""
    ds = one("liar")
    named = str(ds.SOPInstanceUID)
    content = file_of(ds).replace(named.encode(), dicom.uid("liar").encode()[: len(named)], 1)

    answer = server.stow(body([content]))

    assert answer.status == 409
    assert set(answer.reasons().values()) == {0xA900}
    assert server.get(f"/studies/{ds.StudyInstanceUID}").status == 404


def test_parts_that_are_no_part_10_files_are_other_failures(server: dicomweb.Server) -> None:
    """Bytes without an identity are answered for without one."""
    answer = server.stow(body([b"not DICOM at all", one("beside")]))

    assert answer.status == 202
    assert answer.json()["0008119A"]["Value"] == [{"00081197": {"vr": "US", "Value": [0xC007]}}]


def test_a_class_that_is_no_storage_class_is_refused(server: dicomweb.Server) -> None:
    """Verification is not something to keep: 0x0122."""
    ds = one("class", SOPClassUID="1.2.840.10008.1.1")
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID

    answer = server.stow(body([ds]))

    assert (answer.status, list(answer.reasons().values())) == (409, [0x0122])


def test_a_body_without_its_end_stores_what_was_whole(server: dicomweb.Server) -> None:
    """The part that was cut off failed; the one before it is durable."""
    whole, cut = one("whole"), one("cut")
    content = part(file_of(whole)) + part(file_of(cut))[:-200]

    answer = server.stow(content)

    assert (answer.status, answer.stored()) == (202, [str(whole.SOPInstanceUID)])
    assert answer.reasons() == {str(cut.SOPInstanceUID): 0xC006}
    assert list((server.spool / "incoming").iterdir()) == []


def test_a_sender_that_vanishes_leaves_nothing_half(server: dicomweb.Server) -> None:
    """The connection breaks inside the second part: the first is stored, no file is left over."""
    whole, cut = one("stays"), one("vanishes")
    content = part(file_of(whole)) + part(file_of(cut))[:-200]
    with socket.create_connection(("127.0.0.1", server.port)) as link:
        link.sendall(_head(len(content) + 1000) + content)
        peers.wait_for("the second part", lambda: list((server.spool / "incoming").iterdir()))

    def settled() -> bool:
        study = server.study(str(whole.StudyInstanceUID))
        return study is not None and not list((server.spool / "incoming").iterdir())

    peers.wait_for("the first part stored and the second forgotten", settled)
    assert server.study(str(cut.StudyInstanceUID)) is None


def test_a_full_disk_asks_to_come_again(full: dicomweb.Server) -> None:
    """Below the low-water mark: 503 with Retry-After, each instance with 0xA700."""
    ds = one("disk")

    answer = full.stow(body([ds]))

    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
    assert answer.reasons() == {str(ds.SOPInstanceUID): 0xA700}


def test_an_instance_over_the_limit_is_refused(strict: dicomweb.Server) -> None:
    """Larger than max_instance_mb: 413 with its own reason, and nothing is kept of it."""
    ds = one("large")
    ds.add_new(0x00420011, "OB", b"\0" * 1_100_000)

    answer = strict.stow(body([ds]))

    assert (answer.status, list(answer.reasons().values())) == (413, [0xC005])
    assert list((strict.spool / "incoming").iterdir()) == []


def test_a_request_over_the_limit_is_refused_before_it_is_read(strict: dicomweb.Server) -> None:
    """Content-Length says too much: 413 at once; without one, as soon as it is too much."""
    link = socket.create_connection(("127.0.0.1", strict.port), timeout=10)
    with link:
        link.sendall(_head(10_000_000))
        assert b" 413 " in link.recv(100)

    blocks = [part(file_of(one("many")) + b"\0" * 900_000) for _ in range(3)]
    answer = strict.stow(iter([*blocks, CLOSE]))
    assert answer.status == 413


def test_a_silent_sender_is_cut_off_and_its_place_is_free(strict: dicomweb.Server) -> None:
    """While one upload runs the next is told to come again; a silent one ends with 408."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as silent:
        silent.sendall(_head(5000) + part(file_of(one("silent")))[:300])
        busy = peers.wait_for(
            "the second upload to be refused",
            lambda: answer if (answer := strict.stow(body([]))).status == 503 else None,
            0.4,
        )
        assert busy.headers["retry-after"] == "30"
        assert b" 408 " in silent.recv(100)

    assert strict.stow(body([one("after")])).status == 200
    assert list((strict.spool / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ('multipart/related; type="application/dicom+json"; boundary=x', 415),
        ('multipart/related; type="application/dicom+xml"; boundary=x', 415),
        ("application/dicom", 415),
        ('multipart/form-data; type="application/dicom"; boundary=x', 415),
        ('multipart/related; type="application/dicom"', 400),
        ("nonsense", 400),
    ],
)
def test_other_bodies_are_refused(server: dicomweb.Server, content_type: str, status: int) -> None:
    """Metadata with bulk data apart, single files and forms are not taken."""
    answer = server.stow(body([one("type")]), **{"Content-Type": content_type})

    assert answer.status == status
    assert answer.json()["detail"]


def test_nothing_in_a_body_is_a_bad_request(server: dicomweb.Server) -> None:
    """No parts, or a boundary that never comes, stores nothing and says 400."""
    assert server.stow(CLOSE).status == 400
    assert server.stow(b"no boundary in here").status == 400
    assert server.stow(f"--{BOUNDARY} and more".encode() + b"\r\n" + CLOSE).status == 400


def test_our_own_report_sent_back_triggers_nothing(
    filled: dicomweb.Server, ct: list[Dataset]
) -> None:
    """A result of ours that comes by STOW is kept, marked, and served once."""
    study = str(ct[0].StudyInstanceUID)
    before = filled.study(study)
    (report,) = filled.client().search_for_instances(study, search_filters={"Modality": "SR"})
    path = (
        f"/studies/{study}/series/{report['0020000E']['Value'][0]}"
        f"/instances/{report['00080018']['Value'][0]}"
    )
    content = filled.get(path, "application/dicom").body

    answer = filled.stow(body([content]))

    after = filled.study(study)
    assert answer.status == 200
    assert before is not None
    assert after is not None
    assert (after.instance_count, after.state) == (before.instance_count, before.state)
    found = filled.client().search_for_instances(study, search_filters={"Modality": "SR"})
    assert len(found) == 1


def test_pages_of_other_sites_store_nothing(server: dicomweb.Server) -> None:
    """A browser that says it comes from elsewhere is refused; a viewer that is listed is not."""
    content = body([one("origin")])

    assert server.stow(content, Origin="https://evil.example").status == 403
    assert server.stow(content, Origin="https://viewer.example").status == 200


def _head(length: int) -> bytes:
    kind = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
    lines = (
        "POST /dicom-web/studies HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {kind}",
        f"Accept: {JSON}",
        f"Content-Length: {length}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
