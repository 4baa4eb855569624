"""The situations that every kind of result object has to be right in, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from factories import dicom, dicom_enhanced, results

from agent.results.compose import compose_files
from agent.results.context import PriorityStatement, ResultContext
from inference.findings import Status
from inference.report.draft import Draft, Sentence, Source, Verdict

Case = Callable[[Path], ResultContext]


def axial_ct(folder: Path) -> ResultContext:
    """A bleed in an axial CT."""
    return results.positive(dicom.ct_series(), folder)


def oblique_mr(folder: Path) -> ResultContext:
    """A finding in an oblique MR with rectangular frames."""
    return results.positive(dicom.mr_series(plane="oblique", rows=80, cols=60), folder)


def tilted_ct(folder: Path) -> ResultContext:
    """A bleed in a CT with a tilted gantry."""
    return results.positive(dicom.ct_series(tilt_deg=17.0), folder)


def enhanced_ct(folder: Path) -> ResultContext:
    """A bleed in one enhanced multi-frame CT instance."""
    datasets = dicom.ct_series()
    return results.positive(
        [dicom_enhanced.enhanced(datasets)], folder, ground={"key_frame": len(datasets) // 2 + 1}
    )


def enhanced_mr(folder: Path) -> ResultContext:
    """A finding in one enhanced multi-frame MR instance."""
    datasets = dicom.mr_series(plane="oblique")
    return results.positive(
        [dicom_enhanced.enhanced(datasets)], folder, ground={"key_frame": len(datasets) // 2 + 1}
    )


def nothing_found(folder: Path) -> ResultContext:
    """Every label absent."""
    series = results.source(dicom.ct_series(), folder)
    found = (results.finding("hemorrhage", 0.04), results.finding("infarct", 0.11))
    answer = results.findings(_study(), found, reports=[results.report(series)])
    return results.context(answer, [series])


def not_attempted(folder: Path) -> ResultContext:
    """A study that no pack reads."""
    return _without_findings(folder, Status.NOT_ATTEMPTED, "no series has a usable geometry")


def failed(folder: Path) -> ResultContext:
    """An analysis that failed for good."""
    return _without_findings(folder, Status.FAILED, "the model ran out of memory")


def partial(folder: Path) -> ResultContext:
    """Some series could not be read."""
    context = axial_ct(folder)
    answer = results.findings(
        context.findings.study_uid,
        context.findings.findings,
        status=Status.PARTIAL,
        reports=context.findings.series,
        reason="1 of 2 series could not be decoded",
    )
    return results.context(answer, context.sources)


def second_revision(folder: Path) -> ResultContext:
    """Revision 2, replacing the report of revision 1."""
    first = axial_ct(folder)
    reports = [path for _, path in compose_files(first, folder / "revision-1", ["sr"])]
    return results.context(
        first.findings, first.sources, "0b" * 16, revision=2, predecessors=tuple(reports)
    )


def no_frame_of_reference(folder: Path) -> ResultContext:
    """A source that says where its frames lie, but not in which frame of reference."""
    return results.positive(dicom.ct_series(FrameOfReferenceUID=None), folder)


def drafted(folder: Path) -> ResultContext:
    """A report that carries a model's draft, and opinions on the priority that differ."""
    context = axial_ct(folder)
    sentences = (
        Sentence("Acute hemorrhage on the left.", Verdict.SUPPORTED, "", ("hemorrhage",)),
        Sentence("A fracture of the skull.", Verdict.UNSUPPORTED, "no head looks for fractures"),
        Sentence("Écart de la ligne médiane \\ 3 mm.", labels=("mass_effect", "of another pack")),
    )
    draft = Draft("CT Head", sentences, Source.MODEL, "tiny-findings 1.0")
    statement = PriorityStatement(
        "STAT",
        0.93,
        "Hemorrhage 93% (urgent)",
        "LOW",
        ("findings of demo-head: STAT", "triage: LOW"),
        "findings of demo-head: STAT, triage: LOW",
    )
    return dataclasses.replace(context, draft=draft, edition="draft", priority=statement)


def provisional(folder: Path) -> ResultContext:
    """The first series of a study that is not complete."""
    return dataclasses.replace(axial_ct(folder), revision=0, provisional=True)


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        axial_ct,
        oblique_mr,
        tilted_ct,
        enhanced_ct,
        enhanced_mr,
        nothing_found,
        not_attempted,
        failed,
        partial,
        second_revision,
        no_frame_of_reference,
        drafted,
        provisional,
    )
}
LOCATED = (
    "axial_ct",
    "oblique_mr",
    "tilted_ct",
    "enhanced_ct",
    "enhanced_mr",
    "second_revision",
    "drafted",
    "provisional",
)
"""Cases with a mask and a map."""


def _study() -> str:
    return str(dicom.uid("study", "CT", "1"))


def _without_findings(folder: Path, status: Status, reason: str) -> ResultContext:
    series = results.source(dicom.ct_series(), folder)
    report = results.report(series, used=False, reason=reason)
    answer = results.findings(_study(), status=status, reports=[report], reason=reason)
    return results.context(answer, [series])
