"""What happens to each received instance: check, spool, index, and only then success."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import structlog

from agent.intake import translate
from agent.intake.group_commit import GroupCommit
from agent.intake.spool import Refused, Spool
from db.queries import received
from db.queries.intake_usual import Recorder
from dicom_nodes import headers, identifiers, presentation, statuses
from dicom_nodes.headers import Header
from dicom_nodes.received import Peer, ReceivedInstance, StoreRequest

log = structlog.get_logger(__name__)

_FREE_SPACE_AGE_S = 1.0
_MAX_REMEMBERED = 1_000  # AE titles; a hostile peer may invent any number


@dataclass(frozen=True)
class IntakeSettings:
    """Limits of the spool.

    Attributes:
        low_water_bytes: below this free space instances are refused, before the disk is full.
    """

    low_water_bytes: int = 2 * 2**30


class IntakeHandler:
    """A `dicom_nodes.received.StoreHandler` over a spool and a database."""

    def __init__(
        self,
        spool: Spool,
        engine: sa.Engine,
        settings: IntakeSettings | None = None,
        *,
        is_own: Callable[[Header], bool] = lambda _header: False,
        observe: Callable[[int, int], None] = lambda _status, _size_bytes: None,
    ) -> None:
        """Wire the parts.

        Args:
            spool: where files go.
            engine: the record.
            settings: limits.
            is_own: says whether an instance is a result that an agent wrote, this or another.
            observe: told the status and size of every instance, for metrics.
        """
        self._spool = spool
        self._recorder = Recorder(engine)
        self._is_own = is_own
        self._observe = observe
        self._commit: GroupCommit[received.Received, received.Outcome] = GroupCommit(self._record)
        self._space = _FreeSpace(spool, (settings or IntakeSettings()).low_water_bytes)
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._released: dict[str, dt.datetime] = {}

    @property
    def incoming(self) -> Path:
        """Directory for temporary files."""
        return self._spool.incoming

    def admit(self, request: StoreRequest) -> int:
        """Refuse while the disk is nearly full; the sender tries again later."""
        status = statuses.SUCCESS
        if self._space.is_low(time.monotonic()):
            status = statuses.OUT_OF_RESOURCES
        elif len(request.sop_instance_uid) > identifiers.MAX_STORED_UID:
            status = statuses.UID_TOO_LONG
        if status != statuses.SUCCESS:
            self._observe(status, 0)
        return status

    def store(self, instance: ReceivedInstance) -> int:
        """Make one instance durable and index it; return the DIMSE status."""
        status = self._store(instance)
        self._observe(status, instance.size_bytes)
        return status

    def association_opened(self, peer: Peer) -> None:
        """Count a peer's association."""
        with self._lock:
            self._open[peer.calling_ae] += 1

    def association_closed(self, peer: Peer, *, aborted: bool) -> None:
        """Forget a peer's association."""
        with self._lock:
            self._open[peer.calling_ae] -= 1
            self._released.pop(peer.calling_ae, None)
            if not self._open[peer.calling_ae]:
                del self._open[peer.calling_ae]
                if not aborted:
                    self._released[peer.calling_ae] = dt.datetime.now(dt.UTC)
                    while len(self._released) > _MAX_REMEMBERED:
                        self._released.pop(next(iter(self._released)))

    def open_associations(self, calling_ae: str) -> int:
        """Associations of this AE title that are open now: more may come of its studies."""
        with self._lock:
            return self._open[calling_ae]

    def released_at(self, calling_ae: str) -> dt.datetime | None:
        """When this AE title released its last association; None while one is open or one broke."""
        with self._lock:
            return None if self._open[calling_ae] else self._released.get(calling_ae)

    def _store(self, instance: ReceivedInstance) -> int:
        try:
            header = read_header(instance)
        except headers.UnreadableHeader as error:
            return self._refuse(instance, statuses.NOT_PARSABLE, str(error))
        problem = find_problem(header, instance.request)
        if problem is not None:
            return self._refuse(instance, *problem)
        try:
            placed = self._spool.place(
                instance.path, header.study_uid, header.series_uid, header.sop_instance_uid
            )
            # In this thread, for others' directories meanwhile; only the index commits in groups.
            self._spool.sync([placed.path])
            outcome = self._commit.submit(self._to_record(header, instance, placed.path))
        except (OSError, sa.exc.SQLAlchemyError) as error:
            # Nothing is lost: the sender keeps what we do not acknowledge, and a file that was
            # placed is indexed when it comes again, or at the next start.
            log.error("instance_not_recorded", error=type(error).__name__)
            instance.path.unlink(missing_ok=True)
            return statuses.OUT_OF_RESOURCES
        if outcome is received.Outcome.VERSION:
            log.warning("instance_conflict", calling_ae=instance.request.peer.calling_ae)
        elif not placed.is_new:
            log.debug("instance_repeated", calling_ae=instance.request.peer.calling_ae)
        return statuses.SUCCESS

    def _to_record(
        self, header: Header, instance: ReceivedInstance, path: str
    ) -> received.Received:
        return translate.to_record(
            header,
            path=path,
            size_bytes=instance.size_bytes,
            transfer_syntax_uid=instance.request.transfer_syntax_uid,
            calling_ae=instance.request.peer.calling_ae,
            received_at=dt.datetime.now(dt.UTC),
            own_result=self._is_own(header),
        )

    def _record(self, batch: Sequence[received.Received]) -> Sequence[received.Outcome]:
        return self._recorder.record(batch)

    def _refuse(self, instance: ReceivedInstance, status: int, reason: str) -> int:
        request = instance.request
        log.warning(
            "instance_quarantined",
            status=f"0x{status:04X}",
            reason=reason,
            calling_ae=request.peer.calling_ae,
        )
        why = Refused(
            status=f"0x{status:04X}",
            reason=reason,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            calling_ae=request.peer.calling_ae,
            address=request.peer.address,
            received_at=dt.datetime.now(dt.UTC).isoformat(),
        )
        try:
            self._spool.refuse(instance.path, why)
        except OSError as error:
            log.error("quarantine_failed", errno=error.errno)
            instance.path.unlink(missing_ok=True)
        return status


def read_header(instance: ReceivedInstance) -> Header:
    """Read the header from the head, or with pydicom from the file where the scan is unsure.

    Raises:
        UnreadableHeader: neither can.
    """
    request = instance.request
    dataset_bytes = instance.size_bytes - instance.dataset_offset
    try:
        return headers.scan(
            instance.head,
            request.transfer_syntax_uid,
            whole=dataset_bytes == len(instance.head),
        )
    except headers.UnsureHeader as error:
        if request.transfer_syntax_uid == presentation.DEFLATED:
            # pydicom would inflate all of it into memory
            raise headers.UnreadableHeader(f"deflated dataset: {error}") from error
        return headers.read(instance.path)


def find_problem(header: Header, request: StoreRequest) -> tuple[int, str] | None:
    """Say why an instance cannot be indexed, as (status, reason), or None."""
    uids = {
        "Study Instance UID": header.study_uid,
        "Series Instance UID": header.series_uid,
        "SOP Instance UID": header.sop_instance_uid,
        "SOP Class UID": header.sop_class_uid,
    }
    for name, uid in uids.items():
        if not uid:
            return statuses.MISSING_UID, f"the dataset has no {name}"
        if len(uid) > identifiers.MAX_STORED_UID:
            return statuses.UID_TOO_LONG, f"the {name} is too long"
    if header.sop_instance_uid != request.sop_instance_uid:
        return statuses.DATASET_MISMATCH, "the command names another SOP Instance UID"
    if header.sop_class_uid != request.sop_class_uid:
        return statuses.DATASET_MISMATCH, "the command names another SOP Class UID"
    return None


class _FreeSpace:
    """Remembers for a moment whether the spool's disk is nearly full."""

    def __init__(self, spool: Spool, low_water_bytes: int) -> None:
        self._spool = spool
        self._low_water_bytes = low_water_bytes
        self._asked_at = -_FREE_SPACE_AGE_S
        self._is_low = False

    def is_low(self, now_s: float) -> bool:
        if now_s - self._asked_at >= _FREE_SPACE_AGE_S:
            was_low, self._asked_at = self._is_low, now_s
            self._is_low = self._spool.free_bytes() < self._low_water_bytes
            if self._is_low != was_low:
                log.warning("spool_space_low" if self._is_low else "spool_space_recovered")
        return self._is_low
