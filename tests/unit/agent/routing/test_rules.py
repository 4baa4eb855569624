"""The shipped routing rules on the study descriptions that hospitals write."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import config, facts
from agent.routing import rules
from agent.settings import RoutingSettings


@pytest.fixture(scope="module")
def shipped() -> RoutingSettings:
    """The rules of config.toml."""
    return config.load(Path(__file__).resolve().parents[4] / "config.toml").routing


@pytest.mark.parametrize(
    ("modality", "text", "age", "pack"),
    [
        ("CT", "CT HEAD W/O CONTRAST", 60.0, "demo-head"),
        ("CT", "CT Head and Cervical Spine", 60.0, "demo-head"),
        ("CT", "cCT nativ Schaedel", None, "demo-head"),
        ("CT", "STROKE PROTOCOL CTA", 71.0, "demo-head"),
        ("CT", "CT CHEST", 60.0, ""),
        ("CT", "CT Head phantom", 60.0, ""),
        ("CT", "CT HEAD", 1.0, ""),
        ("MR", "MRI Brain w/wo", 60.0, "demo-head"),
        ("MR", "MR KNEE LEFT", 60.0, ""),
        ("MR", "Orbits and pituitary", 60.0, "demo-head"),
        ("US", "US head", 0.5, ""),
        ("CR", "Skull 2 views", 60.0, ""),
    ],
)
def test_the_shipped_rules_route_what_they_should(
    shipped: RoutingSettings, modality: str, text: str, age: float | None, pack: str
) -> None:
    """Head CT and brain MR of adults go to the pack; everything else has a reason."""
    known = facts.StudyFacts(frozenset({modality}), texts=(text,), age_years=age)

    routed = rules.route(known, shipped)

    assert routed.pack == pack
    assert bool(routed.reason) is not bool(pack)
