"""Contexts shared by the tests of result objects."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import dicom, results

from agent.results.context import ResultContext


@pytest.fixture
def context(tmp_path: Path) -> ResultContext:
    """A located hemorrhage and two absent labels in an axial CT."""
    return results.positive(dicom.ct_series(n=16, rows=48, cols=40), tmp_path / "source")
