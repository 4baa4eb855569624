"""Delivery over TLS: with the right authority it arrives, without it nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from factories import certificates, dicom, http
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt

from agent.delivery import registry
from agent.settings import Destination, TlsSettings
from dicom_nodes import tls
from dicom_nodes.errors import NodeConfigError, PeerUnavailable

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The peer's certificate and key, ours as well."""
    return certificates.self_signed(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Somebody else's."""
    return certificates.self_signed(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An object to send."""
    return dicom.save(dicom.ct_series(n=1)[0], tmp_path / "ct.dcm")


@contextmanager
def secure_scp(files: Files, kept: list[str]) -> Iterator[Destination]:
    """A storage SCP that asks for a client certificate."""

    def keep(event: Any) -> int:
        kept.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    certificate, key = files
    entity = AE(ae_title="SECURE")
    entity.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=tls.server_context(certificate, key, ca=certificate),
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    try:
        yield Destination(
            name="secure",
            kind="dicom",
            ae_title="SECURE",
            port=server.server_address[1],
            timeout_s=5,
            tls=TlsSettings(certificate=certificate, key=key, ca=certificate),
        )
    finally:
        server.shutdown()


def test_results_go_to_a_node_over_tls(ours: Files, path: Path) -> None:
    """Both sides show a certificate the other trusts."""
    kept: list[str] = []
    with secure_scp(ours, kept) as destination:
        registry.channel(destination, "WLAGENT").send(path)
    assert len(kept) == 1


def test_a_node_we_do_not_trust_gets_nothing(ours: Files, foreign: Files, path: Path) -> None:
    """A certificate of another authority ends it before DICOM begins."""
    kept: list[str] = []
    with secure_scp(ours, kept) as destination:
        wrong = TlsSettings(certificate=ours[0], key=ours[1], ca=foreign[0])
        channel = registry.channel(destination.model_copy(update={"tls": wrong}), "WLAGENT")
        with pytest.raises(PeerUnavailable, match="trusts the other's certificate"):
            channel.send(path)
    assert kept == []


def test_missing_certificate_files_are_our_own_mistake(tmp_path: Path, path: Path) -> None:
    """Told as configuration, not as a network fault."""
    missing = TlsSettings(ca=tmp_path / "none.pem")
    destination = Destination(name="p", kind="dicom", ae_title="PACS", tls=missing)
    with pytest.raises(NodeConfigError, match="TLS files cannot be used"):
        registry.channel(destination, "WLAGENT").send(path)


def test_https_needs_the_right_authority(ours: Files, foreign: Files, tmp_path: Path) -> None:
    """With the ca file the server answers; with another, or none at that path, we do not ask."""
    with http.serving(lambda _: http.Answer(200, []), tls.server_context(*ours)) as server:
        values = {"name": "web", "kind": "dicomweb", "url": server.url, "timeout_s": 5}
        registry.channel(Destination(**values, ca=ours[0]), "").check()
        asked = len(server.requests)
        with pytest.raises(PeerUnavailable, match="no secure connection"):
            registry.channel(Destination(**values, ca=foreign[0]), "").check()
        with pytest.raises(NodeConfigError, match="ca file"):
            registry.channel(Destination(**values, ca=tmp_path / "none.pem"), "").check()
        assert len(server.requests) == asked
