"""What every test may use: golden data, the peers it needs, and a quiet log."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

REQUIRE_PEERS = os.environ.get("WORKLIST_TESTS_REQUIRE_PEERS") == "1"
PEER_PROGRAMS = {
    "peers": ("Orthanc", "storescu", "findscu", "dsrdump", "psql"),
    "browser": ("chromium", "chromedriver"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose programs are missing, with the reason; fail them where peers are required."""
    for marker, programs in PEER_PROGRAMS.items():
        missing = [p for p in programs if shutil.which(p) is None]
        if not missing:
            continue
        if REQUIRE_PEERS:
            raise pytest.UsageError(f"required peers are missing: {', '.join(missing)}")
        skip = pytest.mark.skip(reason=f"not installed: {', '.join(missing)}")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]
