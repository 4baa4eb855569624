"""The synthetic scanners: make each study and send it to PACS and agent over real associations."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
import structlog

from agent import faults
from dicom_nodes.node import Node
from dicom_nodes.scu import store
from training.synthetic.dicom import write_dicom
from training.synthetic.scenarios import Scenario

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sent:
    """A study that has left the scanner."""

    scenario: Scenario
    study_uid: str
    instances: int


class Scanners:
    """One thread that makes and sends the studies in the given order.

    Args:
        scenarios: in the order of sending.
        directory: where the studies are written.
        receivers: nodes that get every instance, one after the other; the agent last.
    """

    def __init__(
        self, scenarios: Sequence[Scenario], directory: Path, receivers: Sequence[Node]
    ) -> None:
        self._scenarios = scenarios
        self._directory = directory
        self._receivers = receivers
        self._thread = threading.Thread(target=self._run, name="scanners", daemon=True)
        self._stop = threading.Event()
        self.sent: list[Sent] = []
        self.error = ""

    def start(self) -> None:
        """Begin sending."""
        self._thread.start()

    def stop(self) -> None:
        """Send no further study; the one at hand is finished."""
        self._stop.set()

    @property
    def finished(self) -> bool:
        """Whether everything was sent, or `error` says why not."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for scenario in self._scenarios:
                if self._stop.is_set():
                    return
                self.sent.append(self._scan(scenario))
        except Exception as error:  # noqa: BLE001  the thread's edge: the demo shows it
            self.error = faults.describe(error)
            log.error("demo_scanner_failed", why=self.error)

    def _scan(self, scenario: Scenario) -> Sent:
        study = scenario.make()
        files = write_dicom(study, self._directory / scenario.key, scenario.tags)
        for receiver in self._receivers:
            _send(receiver, files)
        header = pydicom.dcmread(files[0], specific_tags=["StudyInstanceUID"])
        return Sent(scenario, str(header.StudyInstanceUID), len(files))


def _send(receiver: Node, files: Sequence[Path]) -> None:
    for outcome in store.store_each(receiver, files):
        outcome.raise_for_error()
