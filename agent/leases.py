"""Keep a lease while somebody works: only the work of a dead process runs out."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Iterator

import structlog

from agent import faults

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def kept(renew: Callable[[], bool], lease: dt.timedelta, key: str) -> Iterator[None]:
    """Renew a lease from a thread of its own for the length of a block.

    Args:
        renew: prolongs it; False when it is no longer ours.
        lease: how long it lasts.
        key: of the study, for the log.
    """
    done = threading.Event()
    args = (renew, lease, key, done)
    keeper = threading.Thread(target=_renew_until, args=args, name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def _renew_until(
    renew: Callable[[], bool], lease: dt.timedelta, key: str, done: threading.Event
) -> None:
    while not done.wait(lease.total_seconds() / 3):
        try:
            still_ours = renew()
        except Exception as error:  # noqa: BLE001  the database is away: the next renewal may work
            log.warning("lease_not_renewed", study=key, why=faults.describe(error))
            continue
        if not still_ours and not done.is_set():
            log.warning("lease_lost", study=key)
            return
