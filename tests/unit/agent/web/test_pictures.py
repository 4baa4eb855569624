"""The default picture: the right slice of the right series, rendered once, failing with reasons."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from factories import rows, ward
from PIL import Image
from sqlalchemy.orm import Session, sessionmaker

from agent.web.pictures import PictureError, Pictures
from db.models import Study

LABEL = rows.HEMORRHAGE


@pytest.fixture
def sessions(tmp_path: Path) -> sessionmaker[Session]:
    """One study with a bleed at LPS (28, -18, 12), its images in the spool."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study = rows.study(session, number=1)
        images = ward.images(session, tmp_path / "spool", study, "CT", (28, -18, 12))
        finding = ward.seen(images, (28, -18, 12), LABEL, 0.97)
        rows.analysis(session, study, rows.findings(finding, rows.finding("atrophy", 0.9)))
    return sessions


def _pictures(sessions: sessionmaker[Session], folder: Path) -> Pictures:
    return Pictures(sessions, folder / "spool", folder / "results")


def test_the_picture_shows_the_key_slice_with_color_where_the_model_looked(
    sessions: sessionmaker[Session], tmp_path: Path
):
    """Anatomy stays gray; the colored spot lies at the finding's place."""
    png = _pictures(sessions, tmp_path).overlay(1, LABEL)

    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)
    colored = picture.max(axis=-1) - picture.min(axis=-1) > 60
    row, col = (axis.mean() for axis in np.nonzero(colored))
    # 128 pixels of 1.7 mm, the middle at (0, 0): x = 28 and y = -18 in a picture of 512
    assert abs(col - (28 / 1.7 + 63.5) * 4) < 16
    assert abs(row - (-18 / 1.7 + 63.5) * 4) < 16
    assert 0.002 < colored.mean() < 0.1


def test_a_picture_is_rendered_once(sessions: sessionmaker[Session], tmp_path: Path):
    """It is kept by analysis; the images may go meanwhile."""
    pictures = _pictures(sessions, tmp_path)
    first = pictures.overlay(1, LABEL)
    shutil.rmtree(tmp_path / "spool")

    assert first == pictures.overlay(1, LABEL)
    (kept,) = (tmp_path / "results" / "pictures").iterdir()
    with sessions() as session:
        study = session.get_one(Study, 1)
    for identity in (study.patient_id, study.accession_number, study.study_uid, LABEL):
        assert identity not in kept.name


@pytest.mark.parametrize(
    ("study", "label", "why"),
    [(1, "atrophy", "does not localize"), (1, "../x", "localize"), (9, LABEL, "no analysis")],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(
    sessions: sessionmaker[Session], tmp_path: Path, study: int, label: str, why: str
):
    """A finding without grounding, an unknown label, a study without analysis."""
    with pytest.raises(PictureError, match=why):
        _pictures(sessions, tmp_path).overlay(study, label)


def test_images_that_are_gone_are_named_as_the_reason(
    sessions: sessionmaker[Session], tmp_path: Path
):
    """Retention may remove the spool before the page is looked at."""
    shutil.rmtree(tmp_path / "spool")

    with pytest.raises(PictureError):
        _pictures(sessions, tmp_path).overlay(1, LABEL)
