"""C-STORE as user: bytes as stored, contexts as needed, every status judged."""

from __future__ import annotations

import copy
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from factories import dicom, peers
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    ParametricMapStorage,
    RLELossless,
)
from pynetdicom import AE, evt

from agent.demo.pacs import EmbeddedPacs
from dicom_nodes.errors import NodeConfigError, PeerBusy, PeerRefused, PeerUnavailable
from dicom_nodes.node import Node
from dicom_nodes.scu.store import send_directory, store


@contextmanager
def scp(
    answer: Callable[[Any], int],
    sop_classes: dict[str, list[str]],
    require_called_ae: bool = False,
) -> Iterator[Node]:
    """A storage SCP that accepts the given classes and answers as told."""
    entity = AE(ae_title="TESTSCP")
    entity.require_called_aet = require_called_ae
    for sop_class, syntaxes in sop_classes.items():
        entity.add_supported_context(sop_class, syntaxes)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)]
    )
    try:
        yield Node("TESTSCP", "127.0.0.1", server.server_address[1], timeout_s=5.0)
    finally:
        server.shutdown()


CT_ONLY = {CTImageStorage: [ExplicitVRLittleEndian]}


def test_files_arrive_as_the_bytes_they_are(pacs: EmbeddedPacs, node: Node, tmp_path: Path) -> None:
    """The dataset the archive kept equals the file's, byte by byte."""
    instances = [*dicom.ct_series(n=2), *dicom.mr_series(n=1)]
    paths = dicom.save_all(instances, tmp_path / "in")
    outcomes = store(node, paths)
    assert [o.sop_instance_uid for o in outcomes] == [str(ds.SOPInstanceUID) for ds in instances]
    assert all(o.ok and not o.warning for o in outcomes)
    for path, ds in zip(paths, instances, strict=True):
        (kept,) = [h for h in pacs.objects() if h.sop_instance_uid == ds.SOPInstanceUID]
        assert _dataset_bytes(kept.path) == _dataset_bytes(path)


def test_a_transfer_syntax_is_kept_as_stored(
    pacs: EmbeddedPacs, node: Node, tmp_path: Path
) -> None:
    """A compressed file travels compressed."""
    ds = dicom.ct_series(n=1)[0]
    ds.compress(RLELossless)
    (outcome,) = store(node, [dicom.save(ds, tmp_path / "rle.dcm")])
    assert outcome.ok
    assert pacs.objects()[0].transfer_syntax_uid == RLELossless


def test_an_implicit_only_peer_gets_implicit_vr(tmp_path: Path) -> None:
    """Where Explicit VR is not accepted, the default transfer syntax is used."""
    seen: list[Dataset] = []

    def keep(event: Any) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        seen.append(ds)
        return 0

    instance = dicom.ct_series(n=1)[0]
    path = dicom.save(instance, tmp_path / "ct.dcm")
    with scp(keep, {CTImageStorage: [ImplicitVRLittleEndian]}) as node:
        (outcome,) = store(node, [path])
    assert outcome.ok
    assert seen[0].file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert seen[0].PixelData == instance.PixelData


def test_datasets_are_sent_like_files(pacs: EmbeddedPacs, node: Node) -> None:
    """Instances need not be on disk."""
    (outcome,) = store(node, dicom.ct_series(n=1))
    assert outcome.ok
    assert dcmread(pacs.objects()[0].path).PatientID == "PAT1"


def test_a_refused_class_does_not_hold_back_the_others(tmp_path: Path) -> None:
    """Only the instance without an accepted context is refused, for good."""
    with scp(lambda _: 0, CT_ONLY) as node:
        refused, taken = store(node, [*dicom.mr_series(n=1), *dicom.ct_series(n=1)])
    assert isinstance(refused.error, PeerRefused)
    assert MRImageStorage in str(refused.error)
    assert taken.ok


def test_no_accepted_context_at_all_is_a_refusal() -> None:
    """The library aborts such an association; it is no reason to try again."""
    with scp(lambda _: 0, {ParametricMapStorage: [ExplicitVRLittleEndian]}) as node:
        outcomes = store(node, dicom.ct_series(n=2))
    assert [type(o.error) for o in outcomes] == [PeerRefused, PeerRefused]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0xA700, PeerBusy),
        (0x0110, PeerBusy),
        (0xA900, PeerRefused),
        (0xC123, PeerRefused),
        (0x0122, PeerRefused),
        (0x0124, PeerRefused),
    ],
)
def test_a_failure_status_says_whether_to_try_again(status: int, error: type[Exception]) -> None:
    """Out of resources passes; not understanding us does not."""
    with scp(lambda _: status, CT_ONLY) as node:
        (outcome,) = store(node, dicom.ct_series(n=1))
    assert type(outcome.error) is error
    assert f"0x{status:04X}" in str(outcome.error)
    with pytest.raises(error):
        outcome.raise_for_error()


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_a_warning_or_duplicate_is_a_success_with_a_remark(status: int) -> None:
    """Coerced, discarded elements and known instances are all held by the peer."""
    with scp(lambda _: status, CT_ONLY) as node:
        (outcome,) = store(node, dicom.ct_series(n=1))
    assert outcome.ok
    assert outcome.warning


def test_a_peer_that_is_down_is_unavailable() -> None:
    """Connection refused is transient and names the place."""
    node = Node("NOBODY", "127.0.0.1", peers.free_port(), timeout_s=2.0)
    with pytest.raises(PeerUnavailable, match=f"NOBODY at 127.0.0.1:{node.port}"):
        store(node, dicom.ct_series(n=1))


def test_an_unknown_host_is_unavailable() -> None:
    """A name that does not resolve is reported as such."""
    with pytest.raises(PeerUnavailable, match="cannot be reached"):
        store(Node("NOBODY", "no-such-host.invalid", 104, timeout_s=2.0), dicom.ct_series(n=1))


def test_a_rejected_association_names_the_reason() -> None:
    """A wrong called AE title is told in words, and may be mended while we wait."""
    with scp(lambda _: 0, CT_ONLY, require_called_ae=True) as right:
        wrong = Node("OTHER", right.host, right.port, timeout_s=5.0)
        with pytest.raises(PeerUnavailable, match="its AE title is another one"):
            store(wrong, dicom.ct_series(n=1))


def test_a_silent_peer_costs_no_more_than_the_timeout() -> None:
    """A peer that accepts TCP and says nothing is given up after timeout_s."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = Node("SILENT", "127.0.0.1", listener.getsockname()[1], timeout_s=0.5)
        with pytest.raises(PeerUnavailable, match="no answer"):
            store(node, dicom.ct_series(n=1))


def test_a_connection_lost_in_the_middle_fails_what_is_left() -> None:
    """Every instance gets an outcome, also those that were never sent."""

    def abort(event: Any) -> int:
        event.assoc.abort()
        return 0

    with scp(abort, CT_ONLY) as node:
        outcomes = store(node, dicom.ct_series(n=3))
    assert len(outcomes) == 3
    assert all(isinstance(o.error, PeerUnavailable) for o in outcomes)


def test_a_late_response_is_given_up(tmp_path: Path) -> None:
    """No response within the time-out is transient."""
    release = threading.Event()

    def wait(_: Any) -> int:
        release.wait(10)
        return 0

    with scp(wait, CT_ONLY) as node:
        hasty = Node(node.ae_title, node.host, node.port, timeout_s=0.5)
        (outcome,) = store(hasty, dicom.ct_series(n=1))
        release.set()
    assert isinstance(outcome.error, PeerUnavailable)


def test_a_directory_is_sent_and_other_files_are_passed_over(
    pacs: EmbeddedPacs, node: Node, tmp_path: Path
) -> None:
    """Only DICOM instances go out; each reports its outcome as it happens."""
    study = dicom.study_dir(tmp_path / "study", dicom.ct_series(n=2), dicom.mr_series(n=1))
    (study / "README.txt").write_text("not DICOM")
    progress: list[str] = []
    outcomes = send_directory(node, study, lambda o: progress.append(o.sop_instance_uid))
    assert len(outcomes) == len(pacs.objects()) == 3
    assert progress == [o.sop_instance_uid for o in outcomes]


def test_a_directory_without_instances_is_an_error(node: Node, tmp_path: Path) -> None:
    """Nothing to send is told, not a silent success."""
    with pytest.raises(NodeConfigError, match="no DICOM instance"):
        send_directory(node, tmp_path)


def test_more_classes_than_an_association_holds_take_several(
    pacs: EmbeddedPacs, node: Node
) -> None:
    """130 different SOP classes are 260 contexts: three associations, all outcomes in order."""
    template = dicom.ct_series(n=1)[0]
    instances = []
    for number in range(130):
        ds = copy.deepcopy(template)
        ds.SOPClassUID = f"1.2.826.0.1.3680043.8.498.{number + 1}"
        ds.SOPInstanceUID = dicom.uid("many", number)
        ds.file_meta = dicom.new_meta(ds.SOPClassUID, ds.SOPInstanceUID)
        instances.append(ds)
    instances.append(template)
    outcomes = store(node, instances)
    assert len(outcomes) == 131
    assert all(isinstance(o.error, PeerRefused) for o in outcomes[:130])
    assert outcomes[130].error is None


def _dataset_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    ds = dcmread(path, stop_before_pixels=True)
    group_length = ds.file_meta.FileMetaInformationGroupLength
    return content[128 + 4 + 12 + group_length :]
