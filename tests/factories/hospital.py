"""Scanners that send until everything is acknowledged, and the checks that nothing was lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pydicom
import sqlalchemy as sa
from factories import dicom, peers
from factories.agent_process import AgentProcess

from agent.demo.pacs import EmbeddedPacs
from db.models import Analysis, Delivery, Instance, Result, Study
from dicom_nodes.errors import NodeError
from dicom_nodes.scu import store

#: How long a child may outlive an agent that was killed.
ORPHAN_S = 20.0


@dataclass(frozen=True)
class Sample:
    """A study as files."""

    study_uid: str
    files: tuple[Path, ...]

    @property
    def sop_uids(self) -> set[str]:
        """Its instances."""
        return {path.stem for path in self.files}


def sample(
    folder: Path,
    patient: str,
    *,
    modality: str = "CT",
    n: int = 10,
    plain: bool = False,
    **tags: Any,
) -> Sample:
    """A small head study of a patient with a bright ball in it, so that something is found.

    Args:
        folder: files go below it.
        patient: makes patient, study and all UIDs.
        modality: CT or MR.
        n: slices.
        plain: gray with single bright voxels, in which nothing is found (MR).
        tags: any DICOM keyword, on every instance.
    """
    series = dicom.ct_series if modality == "CT" else dicom.mr_series
    value, base = (80.0, dicom.head) if modality == "CT" else (900.0, dicom.mr_head)
    made = series(
        n=n,
        rows=48,
        cols=48,
        spacing=(6.0, 4.0, 4.0),
        pixels=_speckled if plain else dicom.ball((20, 20, 0), 18, value, base),
        patient=patient,
        **tags,
    )
    files = dicom.save_all(made, folder / f"study-{modality}-{patient}")
    return Sample(str(made[0].StudyInstanceUID), files)


def _speckled(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A gray head in which every tenth voxel is bright: no region of it is."""
    inside = dicom.head(points) > -500
    number = np.arange(inside.size).reshape(inside.shape)
    return np.where(inside, np.where(number % 10 == 0, 600.0, 60.0), 3.0)


class Scanner:
    """Sends studies in the background, again and again, until each instance is acknowledged."""

    def __init__(self, agent: AgentProcess, samples: Sequence[Sample]) -> None:
        self._agent = agent
        self._left = {path.stem: path for one in samples for path in one.files}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scanner", daemon=True)
        self.acknowledged: set[str] = set()

    def __enter__(self) -> Scanner:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def wait(self, timeout_s: float = 90.0) -> None:
        """Until everything is acknowledged."""
        peers.wait_for("every instance to be acknowledged", lambda: not self._left, timeout_s)

    def _run(self) -> None:
        while self._left and not self._stop.is_set():
            if not peers.listens(self._agent.node.port):
                self._stop.wait(0.1)
                continue
            try:
                for outcome in store.store_each(self._agent.node, list(self._left.values())):
                    if outcome.ok:
                        self.acknowledged.add(outcome.sop_instance_uid)
                        self._left.pop(outcome.sop_instance_uid)
            except NodeError:  # it died, or is not there yet
                self._stop.wait(0.1)


def wait_for_end(processes: Iterable[psutil.Process]) -> None:
    """Until the children of a killed agent have noticed."""
    _, alive = psutil.wait_procs(list(processes), timeout=ORPHAN_S)
    assert not alive, f"outlived the agent by {ORPHAN_S:g} s: {alive}"


def assert_kept(agent: AgentProcess, sop_uids: set[str]) -> None:
    """Every acknowledged instance is in the index, once, and its bytes are in the spool."""
    with agent.reading() as session:
        rows = session.execute(sa.select(Instance.sop_uid, Instance.path)).all()
    spool = agent.data_dir / "spool"
    counted = Counter(uid for uid, _ in rows)

    assert sop_uids <= set(counted)
    assert set(counted.values()) <= {1}
    assert [path for _, path in rows if not (spool / path).is_file()] == []


def assert_same_pixels(agent: AgentProcess, one: Sample) -> None:
    """What lies in the spool is what was sent."""
    with agent.reading() as session:
        rows = dict(session.execute(sa.select(Instance.sop_uid, Instance.path)).all())
    for path in one.files:
        assert pydicom.dcmread(agent.data_dir / "spool" / rows[path.stem]) == pydicom.dcmread(path)


def assert_whole(agent: AgentProcess) -> None:
    """The database is not damaged."""
    with agent.reading() as session:
        assert session.execute(sa.text("PRAGMA integrity_check")).scalars().all() == ["ok"]
        assert session.execute(sa.text("PRAGMA foreign_key_check")).all() == []


def assert_delivered_once(agent: AgentProcess, pacs: EmbeddedPacs, study_uid: str) -> None:
    """The PACS holds exactly what the record says was made: each object of each revision once."""
    with agent.reading() as session:
        study = session.execute(sa.select(Study).filter_by(study_uid=study_uid)).scalar_one()
        analyses = sa.select(Analysis).where(Analysis.study_id == study.id)
        revisions = [a.revision for a in session.execute(analyses).scalars()]
        made = sa.select(Analysis.revision, Result.kind, Result.label, Result.sop_uid)
        made = made.join(Result, Result.analysis_id == Analysis.id)
        results = session.execute(made.where(Analysis.study_id == study.id)).all()
        sent = sa.select(Delivery.subject).where(
            Delivery.study_id == study.id, Delivery.state == "delivered"
        )
        delivered = list(session.execute(sent).scalars())
    held = [held.sop_instance_uid for held in pacs.objects(study_uid)]

    assert sorted(revisions) == list(range(1, study.revision + 1))
    assert Counter((r.revision, r.kind, r.label) for r in results).most_common(1)[0][1] == 1
    assert sorted(held) == sorted(delivered)
    current = {r.sop_uid for r in results if r.revision == study.revision}
    assert current <= set(held)
    assert {r.kind for r in results if r.revision == study.revision} == {"sr", "sc", "seg", "pm"}


def reports(pacs: EmbeddedPacs, study_uid: str) -> list[pydicom.Dataset]:
    """The structured reports the PACS holds of a study, in order of creation."""
    found = [pydicom.dcmread(held.path) for held in pacs.objects(study_uid)]
    of_kind = [ds for ds in found if ds.Modality == "SR"]
    return sorted(of_kind, key=lambda ds: (ds.ContentDate, ds.ContentTime))
