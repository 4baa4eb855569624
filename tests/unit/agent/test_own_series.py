"""Our own results never trigger us, wherever they come from and whatever was forgotten."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import dicom, rows
from factories import results as result_factory
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent import PRODUCT
from agent.own_series import OwnSeries
from agent.results import compose
from dicom_nodes import headers
from dicom_nodes.headers import Header


@pytest.fixture
def sessions(tmp_path: Path) -> sessionmaker[Session]:
    """An empty record."""
    return rows.sessions(tmp_path)


def test_every_object_we_compose_is_known_by_its_header(
    sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    """Also when the record has forgotten it, or another agent wrote it."""
    context = result_factory.positive(dicom.ct_series(n=6, rows=32, cols=32), tmp_path / "source")
    device = dataclasses.replace(context.installation, product=PRODUCT)
    context = dataclasses.replace(context, installation=device)
    made = compose.compose_files(context, tmp_path / "results")
    own = OwnSeries(sessions)

    assert {one.kind for one, _ in made} == {"sr", "sc", "seg", "pm"}
    assert all(own.is_own(headers.read(path)) for _, path in made)


def test_recorded_series_is_ours_even_if_its_maker_was_replaced(
    sessions: sessionmaker[Session],
) -> None:
    """Archives and anonymizers rewrite the manufacturer; the record still knows the series."""
    with sessions.begin() as session:
        study = rows.study(session)
        rows.result(session, rows.analysis(session, study), series_uid="2.25.800")
    own = OwnSeries(sessions)

    assert own.is_own(Header(series_uid="2.25.800", manufacturer="Archive"))
    assert not own.is_own(Header(series_uid="2.25.801", manufacturer="Archive"))


@pytest.mark.parametrize(
    ("manufacturer", "model"), [(PRODUCT, "Scanner 3000"), ("Example", PRODUCT), ("", "")]
)
def test_half_a_name_is_not_ours(
    sessions: sessionmaker[Session], manufacturer: str, model: str
) -> None:
    """An image must never be left out because a scanner is called alike."""
    assert not OwnSeries(sessions).is_own(Header(manufacturer=manufacturer, model_name=model))


def test_record_is_asked_once_a_series(tmp_path: Path) -> None:
    """A thousand slices cost one query."""
    asked = []
    real = rows.sessions(tmp_path)

    class Counting:
        def __call__(self) -> Session:
            asked.append(1)
            return real()

    own = OwnSeries(Counting())
    for _ in range(5):
        own.is_own(Header(series_uid="2.25.1"))

    assert len(asked) == 1


@pytest.mark.parametrize("make", [dicom.ct_series, dicom.mr_series])
def test_scanner_images_are_not_ours(
    sessions: sessionmaker[Session], make: Callable[..., list[Dataset]], tmp_path: Path
) -> None:
    """What is to be analysed is never taken for a result."""
    (path, *_) = dicom.save_all(make(n=1), tmp_path / "images")

    assert not OwnSeries(sessions).is_own(headers.read(path))
