"""What DICOMweb finds in the record, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from db.models import Study
from db.queries import dicomweb as queries
from db.queries.dicomweb import Counts, Filters, Levels

ALL = Filters()
LEVELS = Levels({"STAT": 0}, otherwise=2)


def test_versions_and_results_are_counted_once(sessions: sessionmaker[Session]) -> None:
    """The newest version, results that are not in shadow, and those sent back only once."""
    with sessions.begin() as session:
        study = rows.study(session)
        series = rows.series(session, study, number=3)
        rows.instance(session, series, sop_uid="1.1", version=0, path="s/old.dcm")
        rows.instance(session, series, sop_uid="1.1", version=1, path="s/new.dcm", number=7)
        live = rows.analysis(session, study)
        rows.result(session, live, kind="seg", sop_uid="2.1", series_uid="2")
        back = rows.series(session, study, series_uid="3", modality="SR", own_result=True)
        rows.instance(session, back, sop_uid="3.1", path="s/back.dcm")
        rows.result(session, live, kind="sr", sop_uid="3.1", series_uid="3")
        hidden = rows.analysis(session, study, id="f" * 32, pack="other", shadow=True)
        rows.result(session, hidden, kind="sc", sop_uid="4.1", series_uid="4")
        study_id, uids = study.id, (series.series_uid, "2", "3")

    with sessions() as session:
        found = queries.objects(session, ALL, {})
        assert {one.path for one in found} >= {"s/new.dcm", "s/back.dcm"}
        assert sorted(one.sop_uid for one in found) == ["1.1", "2.1", "3.1"]
        assert found[0].number == 7
        assert queries.counts(session, [study_id]) == {study_id: Counts(3, 3)}
        assert queries.modalities(session, [study_id]) == {study_id: {"CT", "SEG", "SR"}}
        assert queries.series_counts(session, [study_id], uids) == {
            (study_id, uid): 1 for uid in uids
        }
        assert queries.samples(session, [study_id])[study_id, ""][0] == queries.SPOOL
        assert set(queries.samples(session, [study_id], uids)) == {(study_id, u) for u in uids}
        listed = queries.series(session, ALL, {}, limit=9, offset=0)
        assert listed[0].modality == "CT"
        assert len(queries.series(session, ALL, {"modality~": ["s%"]}, limit=9, offset=0)) == 2
        assert len(queries.objects(session, ALL, {"number": ["7"], "sop_uid": ["1.1"]})) == 1


def test_studies_come_in_the_order_that_was_asked(sessions: sessionmaker[Session]) -> None:
    """The newest first; or unread ones by level, then by waiting time, those read last."""
    with sessions.begin() as session:
        read = rows.study(session, priority="STAT", reading_state="read")
        low = rows.study(session, priority="LOW")
        ordered = rows.study(session, ordered_priority="Stat", first_instance_at=rows.NOW)
        urgent = rows.study(session, priority="STAT")
        wanted = [urgent.id, ordered.id, low.id, read.id]

    with sessions() as session:
        newest = queries.studies(session, ALL, limit=9, offset=0)
        reading = queries.studies(session, ALL, limit=9, offset=0, levels=LEVELS)
        seg = queries.studies(session, Filters(modalities=("SEG",)), limit=9, offset=0)
        one = queries.studies(
            session, Filters((Study.id == wanted[0],), ("C%",)), limit=9, offset=0
        )
        behind = queries.read_studies(session, limit=9, offset=0)

    assert [row.id for row in newest] == sorted(wanted, reverse=True)
    assert [row.id for row in reading] == wanted
    assert (list(seg), [row.id for row in one]) == ([], [wanted[0]])
    assert [row.id for row in behind] == [wanted[-1]]
