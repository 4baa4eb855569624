"""An archive to talk to, and nodes that name it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo.pacs import EmbeddedPacs
from dicom_nodes.node import Node


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[EmbeddedPacs]:
    """A running, empty archive."""
    with EmbeddedPacs(tmp_path / "archive") as archive:
        yield archive


@pytest.fixture
def node(pacs: EmbeddedPacs) -> Node:
    """How to reach it."""
    return Node(pacs.ae_title, pacs.host, pacs.port, timeout_s=10.0)
