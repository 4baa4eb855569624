"""Identifiers of result objects: fixed by the analysis, never shared."""

from __future__ import annotations

import dataclasses

from pydicom.uid import UID

from agent.results.context import ResultContext, model_device_uid, uid_for
from inference.findings import Finding


def test_uids_are_the_same_every_time_and_valid():
    """A retry writes the identifiers it wrote before."""
    first = uid_for("ab" * 16, "instance", "seg", "hemorrhage")

    assert first == "2.25.196314377419872396376854051911181131651"
    assert UID(first).is_valid


def test_uids_tell_role_kind_label_and_analysis_apart():
    """No two things in the PACS share an identifier."""
    uids = {
        uid_for(analysis, role, kind, label)
        for analysis in ("a" * 32, "b" * 32)
        for role in ("series", "instance", "tracking")
        for kind in ("seg", "pm", "sr")
        for label in ("", "a", "b")
    }

    assert len(uids) == 2 * 3 * 3 * 3


def test_a_changed_model_is_another_device():
    """New weights under the same version have a Device UID of their own."""
    assert model_device_uid("head", "1.0", "aa") != model_device_uid("head", "1.0", "bb")


def test_only_the_most_probable_located_findings_get_pixel_objects(context: ResultContext):
    """`max_segments` keeps the most probable ones; absent labels get none."""
    located = context.findings.findings[0]
    found: list[Finding] = [
        dataclasses.replace(located, label=f"label{n}", probability=n / 10) for n in range(10)
    ]
    many = dataclasses.replace(
        context,
        findings=dataclasses.replace(context.findings, findings=tuple(found)),
        options=dataclasses.replace(context.options, max_segments=2),
    )

    assert [f.label for f in many.grounded] == ["label9", "label8"]
