"""C-STORE: instances to a peer, as the bytes they are stored in, with only the contexts they need.

One context per SOP class and stored transfer syntax; for native little endian also one in Implicit
VR Little Endian, the syntax every peer must take (PS3.5 10.1), used when the first is refused.
Nothing is retried here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MediaStorageDirectoryStorage
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from dicom_nodes import answers
from dicom_nodes.answers import StoreOutcome
from dicom_nodes.errors import NodeConfigError, NodeError, PeerRefused
from dicom_nodes.node import Node
from dicom_nodes.scu.association import MAX_CONTEXTS, associate, broken, where

Progress = Callable[[StoreOutcome], None]
ContextKey = tuple[str, str]
"""SOP class UID, transfer syntax UID."""


@dataclass(frozen=True)
class _Item:
    """An instance to send and what its context must be."""

    content: Path | Dataset
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def store(node: Node, instances: Iterable[Path | Dataset]) -> list[StoreOutcome]:
    """Send instances over as few associations as their contexts allow.

    Args:
        node: the storage SCP.
        instances: Part-10 files, or datasets with file meta (their transfer syntax counts).

    Returns:
        One outcome per instance, in the order given.

    Raises:
        PeerUnavailable: no association could be opened; nothing more was sent.
        NodeConfigError: something given is not a DICOM instance.
    """
    return list(store_each(node, instances))


def store_each(node: Node, instances: Iterable[Path | Dataset]) -> Iterator[StoreOutcome]:
    """As `store`, yielding each outcome when it is known."""
    for batch in _batches([_item(instance) for instance in instances]):
        yield from _store_batch(node, batch)


def send_directory(
    node: Node, directory: Path, progress: Progress | None = None
) -> list[StoreOutcome]:
    """Send every DICOM file below a directory (in name order); other files are passed over.

    Raises:
        PeerUnavailable: as `store`.
        NodeConfigError: there is no DICOM instance below the directory.
    """
    paths = [path for path in sorted(directory.rglob("*")) if _is_instance(path)]
    if not paths:
        raise NodeConfigError(f"{directory}: no DICOM instance below it; give a study's directory")
    outcomes = []
    for outcome in store_each(node, paths):
        outcomes.append(outcome)
        if progress:
            progress(outcome)
    return outcomes


def _store_batch(node: Node, batch: Sequence[_Item]) -> Iterator[StoreOutcome]:
    try:
        with associate(node, _contexts(batch)) as association:
            for number, item in enumerate(batch):
                yield _store_one(node, association, item, message_id=number % 65535 + 1)
    except PeerRefused as error:  # not one context accepted
        for item in batch:
            yield StoreOutcome(item.sop_instance_uid, error=error)


def _store_one(
    node: Node, association: Association, item: _Item, *, message_id: int
) -> StoreOutcome:
    if not association.is_established:
        return StoreOutcome(item.sop_instance_uid, error=broken(node))
    try:
        content = _as_accepted(node, association, item)
    except NodeError as error:
        return StoreOutcome(item.sop_instance_uid, error=error)
    try:
        response = association.send_c_store(content, msg_id=message_id)
    except RuntimeError:  # the association ended between our look and the call
        return StoreOutcome(item.sop_instance_uid, error=broken(node))
    if "Status" not in response:
        return StoreOutcome(item.sop_instance_uid, error=broken(node))
    return answers.store_outcome(item.sop_instance_uid, int(response.Status), where(node))


def _as_accepted(node: Node, association: Association, item: _Item) -> Path | Dataset:
    """The file as it is, or decoded for the Implicit VR fallback.

    Raises:
        PeerRefused: the peer accepted no usable context for the instance.
    """
    accepted = {
        (str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts
    }
    if (item.sop_class_uid, item.transfer_syntax_uid) in accepted:
        return item.content
    fallback = (item.sop_class_uid, str(ImplicitVRLittleEndian))
    if item.transfer_syntax_uid == ExplicitVRLittleEndian and fallback in accepted:
        return dcmread(item.content) if isinstance(item.content, Path) else item.content
    raise PeerRefused(
        f"{where(node)}: does not accept SOP class {item.sop_class_uid} in transfer syntax "
        f"{item.transfer_syntax_uid}; allow it there or do not send such objects to it"
    )


def _contexts(batch: Sequence[_Item]) -> list[PresentationContext]:
    keys = dict.fromkeys(key for item in batch for key in _needed(item))
    return [build_context(sop_class, syntax) for sop_class, syntax in keys]


def _needed(item: _Item) -> list[ContextKey]:
    keys = [(item.sop_class_uid, item.transfer_syntax_uid)]
    if item.transfer_syntax_uid == ExplicitVRLittleEndian:
        keys.append((item.sop_class_uid, str(ImplicitVRLittleEndian)))
    return keys


def _batches(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Split, in order, where an association would need more contexts than it can hold."""
    batch: list[_Item] = []
    keys: set[ContextKey] = set()
    for item in items:
        needed = keys | set(_needed(item))
        if len(needed) > MAX_CONTEXTS:
            yield batch
            batch, needed = [], set(_needed(item))
        batch.append(item)
        keys = needed
    if batch:
        yield batch


def _item(instance: Path | Dataset) -> _Item:
    if isinstance(instance, Dataset):
        meta = getattr(instance, "file_meta", Dataset())
        sop_class, sop_uid = instance.get("SOPClassUID"), instance.get("SOPInstanceUID")
    else:
        meta = _meta(instance)
        sop_class = meta.get("MediaStorageSOPClassUID")
        sop_uid = meta.get("MediaStorageSOPInstanceUID")
    syntax = meta.get("TransferSyntaxUID")
    if not (sop_class and sop_uid and syntax):
        raise NodeConfigError(
            "instance to send lacks SOP class, SOP instance or transfer syntax UID; "
            "write it as a DICOM file with file meta information"
        )
    return _Item(instance, str(sop_class), str(sop_uid), str(syntax))


def _meta(path: Path) -> Dataset:
    try:
        meta: Dataset = read_file_meta_info(path)
    except (InvalidDicomError, OSError, EOFError) as error:
        raise NodeConfigError(
            f"file to send is not a readable DICOM file ({type(error).__name__})"
        ) from error
    return meta


def _is_instance(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return False
    return bool(_meta(path).get("MediaStorageSOPClassUID") != MediaStorageDirectoryStorage)
