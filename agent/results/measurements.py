"""The measurement groups of the report: the study as a whole, each label, each located finding.

TID 1501 for the study and for each label, TID 1411 for a finding with a mask. Texts that no
template row foresees are qualitative evaluations by text, under concepts of our own scheme.
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from agent.results import codes as concepts
from agent.results import context as contexts
from agent.results import equipment, seg
from agent.results.material import Material
from agent.results.text import plain
from inference.findings import LIME, Finding, Grounding, Status

Group = (
    sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)
MAX_SERIES_LISTED = 64
PROVISIONAL = "From the first series, before the study was complete; another report replaces this"


def study_group(context: contexts.ResultContext) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501: how the analysis ended and the priority that follows, with the reason."""
    findings, priority = context.findings, context.priority
    values = [
        (concepts.SUMMARY, concepts.SUMMARY_VALUES[findings.status]),
        (concepts.PRIORITY, concepts.level(priority.level)),
    ]
    if priority.ordered:
        values.append((concepts.ORDERED_PRIORITY, concepts.level(priority.ordered)))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=context.uid("tracking", "study"), identifier="AI triage"
        ),
        algorithm_id=algorithm(context, study_parameters(context)),
        qualitative_evaluations=[sr.QualitativeEvaluation(*pair) for pair in values],
    )
    if context.provisional:
        add_text(group[0], concepts.PROVISIONAL, PROVISIONAL)
    add_text(group[0], concepts.PRIORITY_REASON, priority.reason)
    for voice in priority.voices:
        add_text(group[0], concepts.PRIORITY_VOICE, voice)
    add_text(group[0], concepts.PRIORITY_DIFFERENCE, priority.disagreement)
    add_text(group[0], concepts.PRIOR_COMPARISON, context.comparison)
    if findings.status is not Status.SUCCEEDED:
        add_text(group[0], concepts.STATUS_REASON, findings.reason)
    return group


def finding_group(material: Material, finding: Finding) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501: presence and probability of one label, present or absent."""
    context = material.context
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=context.uid("tracking", "label", finding.label),
            identifier=plain(f"AI study {finding.label}", 64),
        ),
        finding_type=concepts.finding_type(finding),
        finding_category=concepts.CLINICAL_FINDING,
        finding_sites=[sr.FindingSite(concepts.site(finding))],
        algorithm_id=algorithm(context, [f"threshold={finding.threshold:g}"]),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(concepts.PRESENCE, presence(finding, context.findings.status))
        ],
        measurements=[_certainty(finding)],
        source_images=_source_images(material, finding),
    )


def located_group(
    material: Material, finding: Finding, made: Sequence[contexts.ComposedObject]
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations | None:
    """TID 1411: the segment and the map of a located finding; None without a segment."""
    mask, attention = _of(made, "seg", finding), _of(made, "pm", finding)
    if mask is None or finding.grounding is None:
        return None
    context = material.context
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=context.uid("tracking", "finding", finding.label),
            identifier=seg.tracking_id(finding),
        ),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=mask.sop_class_uid,
            sop_instance_uid=mask.sop_uid,
            segment_number=1,
            source_series=sr.SourceSeriesForSegmentation(finding.grounding.series_uid),
        ),
        finding_type=concepts.finding_type(finding),
        finding_category=concepts.CLINICAL_FINDING,
        finding_sites=[sr.FindingSite(concepts.site(finding))],
        algorithm_id=algorithm(context, [f"mask-threshold={finding.grounding.threshold:g}"]),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(concepts.PRESENCE, presence(finding, context.findings.status))
        ],
        measurements=[_certainty(finding)],
    )
    add_text(group[0], concepts.EXPLANATION_FIT, _fit(finding.grounding))
    if attention is not None:
        group[0].ContentSequence.append(_visual_explanation(attention))
    return group


def presence(finding: Finding, status: Status) -> sr.CodedConcept:
    """Present, absent, or undetermined: what was only read in part excludes nothing."""
    if finding.present:
        return concepts.PRESENT
    return concepts.ABSENT if status is Status.SUCCEEDED else concepts.UNDETERMINED


def study_parameters(context: contexts.ResultContext) -> list[str]:
    """What it takes to say which analysis this was: build, input, limits (TID 4019 row 4)."""
    findings, device = context.findings, context.installation
    lines = [
        f"analysis={context.analysis_id}",
        f"revision={context.revision}",
        f"software={device.product} {device.version}",
        f"pack={findings.pack.name or 'none'} {findings.pack.version}",
        f"pack-sha256={findings.pack.digest or 'none'}",
        f"pack-licence={findings.pack.licence or 'none'}",
        f"notice={findings.pack.notice or 'research use only'}",
    ]
    for series in findings.series[:MAX_SERIES_LISTED]:
        state = f"read slices={series.slices}" if series.used else f"skipped: {series.reason}"
        lines.append(f"series={series.series_uid} {state}")
        lines += [f"warning={series.series_uid} {text}" for text in series.warnings]
    left_out = len(findings.series) - MAX_SERIES_LISTED
    return [plain(line) for line in lines] + ([f"series-not-listed={left_out}"] * (left_out > 0))


def algorithm(context: contexts.ResultContext, parameters: list[str]) -> sr.AlgorithmIdentification:
    """The model pack as the algorithm behind a group (TID 4019)."""
    pack = context.findings.pack
    return sr.AlgorithmIdentification(
        name=plain(pack.name, 64) or "none",
        version=equipment.algorithm_version(pack),
        parameters=parameters,
        family=codes.cid7162.ArtificialIntelligence,
    )


def _certainty(finding: Finding) -> sr.Measurement:
    """Probability that the finding is present, in percent, whether it is called so or not."""
    return sr.Measurement(
        name=concepts.CERTAINTY,
        value=round(100 * finding.probability, 1),
        unit=codes.UCUM.Percent,
    )


def _fit(grounding: Grounding) -> str:
    """Nothing for attention, which is the model's own."""
    if grounding.method != LIME or grounding.fit is None:
        return ""
    return (
        "LIME: places whose presence speaks for the finding; its linear fit explains "
        f"{max(grounding.fit, 0):.0%} of the variance of answers it has not seen"
    )


def _source_images(
    material: Material, finding: Finding
) -> list[sr.SourceImageForMeasurementGroup] | None:
    key = material.key_reference(finding.grounding) if finding.grounding else None
    if key is None:
        return None
    return [
        sr.SourceImageForMeasurementGroup(
            referenced_sop_class_uid=key.sop_class_uid,
            referenced_sop_instance_uid=key.sop_uid,
            referenced_frame_numbers=[key.frame_number] if key.frame_number else None,
        )
    ]


def _visual_explanation(attention: contexts.ComposedObject) -> Dataset:
    return sr.ImageContentItem(
        name=concepts.VISUAL_EXPLANATION,
        referenced_sop_class_uid=attention.sop_class_uid,
        referenced_sop_instance_uid=attention.sop_uid,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )


def add_text(group: Dataset, name: sr.CodedConcept, text: str) -> None:
    """Add a text to a measurement group; nothing when there is none."""
    if not plain(text):
        return
    group.ContentSequence.append(
        sr.TextContentItem(
            name=name, value=plain(text), relationship_type=sr.RelationshipTypeValues.CONTAINS
        )
    )


def _of(
    made: Sequence[contexts.ComposedObject], kind: str, finding: Finding
) -> contexts.ComposedObject | None:
    return next((o for o in made if o.kind == kind and o.label == finding.label), None)
