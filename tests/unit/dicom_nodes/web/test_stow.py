"""STOW-RS as client: stored is what the server lists as stored, everything else has a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import dicom, http, peers
from pydicom.dataset import Dataset

from dicom_nodes.errors import NodeConfigError, PeerBusy, PeerRefused, PeerUnavailable
from dicom_nodes.web.peer import DicomWebPeer
from dicom_nodes.web.stow import store

REFERENCED, FAILED = "ReferencedSOPSequence", "FailedSOPSequence"


def response(ds: Dataset, sequence: str, **reason: int) -> Any:
    """A STOW response that lists one instance."""
    item = Dataset()
    item.ReferencedSOPClassUID = ds.SOPClassUID
    item.ReferencedSOPInstanceUID = ds.SOPInstanceUID
    for keyword, value in reason.items():
        setattr(item, keyword, value)
    answer = Dataset()
    setattr(answer, sequence, [item])
    return answer.to_json_dict()


@pytest.fixture
def ct() -> Dataset:
    """One instance to send."""
    return dicom.ct_series(n=1)[0]


def test_an_instance_the_answer_lists_is_stored(ct: Dataset, tmp_path: Path) -> None:
    """The body is one part of application/dicom that holds the file as it is."""
    path = dicom.save(ct, tmp_path / "ct.dcm")
    with http.serving(lambda _: http.Answer(200, response(ct, REFERENCED))) as server:
        (outcome,) = store(DicomWebPeer(server.url), [path])
    assert outcome.ok
    assert not outcome.warning
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/dicom-web/studies")
    assert path.read_bytes() in request.body


def test_media_type_parameters_do_not_hide_the_answer(ct: Dataset) -> None:
    """An answer labelled with a charset is read all the same."""
    answer = http.Answer(200, response(ct, REFERENCED), "application/dicom+json; charset=utf-8")
    with http.serving(lambda _: answer) as server:
        (outcome,) = store(DicomWebPeer(server.url), [ct])
    assert outcome.ok


@pytest.mark.parametrize("content", [b"", {}])
def test_an_answer_that_does_not_list_the_instance_is_no_success(ct: Dataset, content: Any) -> None:
    """HTTP 200 alone says nothing about an instance."""
    with http.serving(lambda _: http.Answer(200, content)) as server:
        (outcome,) = store(DicomWebPeer(server.url), [ct])
    assert isinstance(outcome.error, PeerBusy)


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize(
    ("reason", "error"), [(0xA700, PeerBusy), (0x0110, PeerBusy), (0x0122, PeerRefused)]
)
def test_a_failure_reason_says_whether_to_try_again(
    ct: Dataset, status: int, reason: int, error: type[Exception]
) -> None:
    """Per-instance reasons win over the HTTP status, whichever of the allowed ones it is."""
    content = response(ct, FAILED, FailureReason=reason)
    with http.serving(lambda _: http.Answer(status, content)) as server:
        (outcome,) = store(DicomWebPeer(server.url), [ct])
    assert type(outcome.error) is error
    assert outcome.status == reason


def test_a_warning_reason_is_a_success_with_a_remark(ct: Dataset) -> None:
    """Coercion is worth knowing, not worth repeating."""
    content = response(ct, REFERENCED, WarningReason=0xB000)
    with http.serving(lambda _: http.Answer(202, content)) as server:
        (outcome,) = store(DicomWebPeer(server.url), [ct])
    assert outcome.ok
    assert outcome.warning


def test_some_stored_and_some_refused_are_told_apart() -> None:
    """Each instance has its own outcome, in the order given."""
    first, second = dicom.ct_series(n=2)
    content = response(first, REFERENCED) | response(second, FAILED, FailureReason=0xC000)
    with http.serving(lambda _: http.Answer(202, content)) as server:
        outcomes = store(DicomWebPeer(server.url), [first, second])
    assert [o.ok for o in outcomes] == [True, False]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, PeerRefused),
        (401, PeerRefused),
        (404, PeerRefused),
        (415, PeerRefused),
        (408, PeerBusy),
        (409, PeerBusy),
        (429, PeerBusy),
        (500, PeerBusy),
        (503, PeerBusy),
    ],
)
def test_an_http_error_says_whether_to_try_again(
    ct: Dataset, status: int, error: type[Exception]
) -> None:
    """Server trouble and throttling pass; our mistakes do not. Asked once, not retried here."""
    with http.serving(lambda _: http.Answer(status)) as server:
        with pytest.raises(error, match=f"HTTP {status}"):
            store(DicomWebPeer(server.url), [ct])
        assert len(server.requests) == 1


def test_a_server_that_is_down_is_unavailable(ct: Dataset) -> None:
    """Connection refused is transient."""
    peer = DicomWebPeer(f"http://127.0.0.1:{peers.free_port()}/dicom-web", timeout_s=2.0)
    with pytest.raises(PeerUnavailable, match="no connection"):
        store(peer, [ct])


def test_a_url_that_is_none_is_our_own_mistake(ct: Dataset) -> None:
    """A malformed url is a configuration error."""
    with pytest.raises(NodeConfigError, match="not a usable"):
        store(DicomWebPeer("pacs.example/dicom-web"), [ct])


def test_credentials_come_from_files_at_each_request(ct: Dataset, tmp_path: Path) -> None:
    """A rotated token is used without a restart; it is never part of an error."""
    token = tmp_path / "token"
    with http.serving(lambda _: http.Answer(401)) as server:
        peer = DicomWebPeer(server.url, token_file=token)
        for secret in ("first-secret", "second-secret"):
            token.write_text(f"{secret}\n")
            with pytest.raises(PeerRefused) as caught:
                store(peer, [ct])
            assert secret not in str(caught.value)
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer first-secret", "Bearer second-secret"]


def test_a_user_name_and_password_file_make_basic_authentication(
    ct: Dataset, tmp_path: Path
) -> None:
    """RFC 7617 with UTF-8."""
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    with http.serving(lambda _: http.Answer(200, response(ct, REFERENCED))) as server:
        store(DicomWebPeer(server.url, username="agent", password_file=password), [ct])
    assert server.requests[0].headers["Authorization"] == "Basic YWdlbnQ6b3BlbiBzZXNhbWU="


def test_a_missing_secret_file_is_our_own_mistake(ct: Dataset, tmp_path: Path) -> None:
    """The file is named, nothing is sent."""
    with http.serving(lambda _: http.Answer(200)) as server:
        with pytest.raises(NodeConfigError, match="secret file"):
            store(DicomWebPeer(server.url, token_file=tmp_path / "none"), [ct])
        assert server.requests == []


def test_the_environment_does_not_redirect_us(ct: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable in the environment is not followed."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{peers.free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with http.serving(lambda _: http.Answer(200, response(ct, REFERENCED))) as server:
        (outcome,) = store(DicomWebPeer(server.url), [ct])
    assert outcome.ok
