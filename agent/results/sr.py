"""The report of one analysis: Comprehensive 3D SR after TID 1500, written whatever the outcome.

Nothing found, not attempted, failed and partial are all stated: the absence of a report must never
have to be read as the absence of a finding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import highdicom as hd
import pydicom
import structlog
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage

from agent.results import codes as concepts
from agent.results import context as contexts
from agent.results import headers, identity, measurements, narrative, planes
from agent.results.material import REFERENCE, Material
from agent.results.text import STATEMENT, plain
from inference.findings import Status

log = structlog.get_logger(__name__)

HEAD = ("HEAD", "BRAIN", "SKULL")
CARRIER_UID = "2.25.1"
EDITION_NUMBERS = {"": 0, "draft": 2, "triage": 3}
"""Series numbers above `headers.SERIES_NUMBERS`; 1 is the summary page's."""
REQUEST = (
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
)


def compose(
    material: Material, made: Sequence[contexts.ComposedObject]
) -> Iterator[contexts.ComposedObject]:
    """The one report; it refers to the segmentations and maps already made."""
    context, template = material.context, material.template
    title = "AI triage report, provisional" if context.provisional else "AI triage report"
    naming = headers.Naming("sr", context.edition, title, EDITION_NUMBERS[context.edition])
    others = [o for o in made if o.kind in ("seg", "pm")]
    evidence = [*material.evidence, *(_reference_to(o, context) for o in others)]
    dataset = hd.sr.Comprehensive3DSR(
        evidence=[_carrier(template), *evidence],
        content=_report(material, others)[0],
        is_complete=context.findings.status is Status.SUCCEEDED and not context.provisional,
        is_final=False,
        is_verified=False,
        previous_versions=predecessors(context) or None,
        **headers.constructor_arguments(context, naming),
    )
    dataset.CurrentRequestedProcedureEvidenceSequence = _grouped(evidence)
    dataset.CompletionFlagDescription = STATEMENT
    dataset.CodingSchemeIdentificationSequence = _schemes(context)
    requests = _requests(template)
    if requests:
        dataset.ReferencedRequestSequence = requests
    yield headers.finish(dataset, context, template, naming)


def predecessors(context: contexts.ResultContext) -> list[Dataset]:
    """References to the reports that this one replaces; files that are gone are left out."""
    found = []
    for path in context.predecessors:
        try:
            found.append(pydicom.dcmread(path, specific_tags=list(REFERENCE)))
        except (InvalidDicomError, OSError):
            log.warning("predecessor_unreadable", analysis=context.analysis_id)
    return [ds for ds in found if ds.StudyInstanceUID == context.findings.study_uid]


def _report(material: Material, made: Sequence[contexts.ComposedObject]) -> sr.MeasurementReport:
    findings = material.context.findings.findings
    groups: list[measurements.Group] = [measurements.study_group(material.context)]
    groups += [measurements.finding_group(material, finding) for finding in findings]
    located = (measurements.located_group(material, f, made) for f in findings)
    groups += [group for group in located if group is not None]
    groups += narrative.draft_groups(material.context)
    return sr.MeasurementReport(
        observation_context=_observer(material.context),
        procedure_reported=procedure(material.template, material.context.findings.status),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            hd.sr.CodedConcept("en-US", "RFC5646", "English (United States)")
        ),
        referenced_images=_key_images(material) or None,
    )


def procedure(template: Dataset, status: Status) -> hd.sr.CodedConcept:
    """The imaging procedure that was analyzed: as ordered, else by modality and body part."""
    for item in template.get("ProcedureCodeSequence") or []:
        value, scheme = item.get("CodeValue", ""), item.get("CodingSchemeDesignator", "")
        meaning = plain(str(item.get("CodeMeaning", "")), 64)
        if value and scheme and meaning:
            return hd.sr.CodedConcept(plain(str(value), 16), plain(str(scheme), 16), meaning)
    modality = str(template.get("Modality", ""))
    body_part = str(template.get("BodyPartExamined") or "").upper()
    analyzed = status in (Status.SUCCEEDED, Status.PARTIAL)
    table = concepts.HEAD_PROCEDURES if analyzed or body_part in HEAD else concepts.PROCEDURES
    return table.get(modality, concepts.sct("363679005", "Imaging procedure"))


def _observer(context: contexts.ResultContext) -> sr.ObservationContext:
    device = context.installation
    product, node = plain(device.product, 64), plain(device.node_name, 64)
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=device.device_uid,
                name=node,
                manufacturer_name=product,
                model_name=product,
                serial_number=node,
                physical_location=plain(device.station or device.institution, 64) or None,
            ),
        )
    )


def _key_images(material: Material) -> list[Dataset]:
    """Headers of the key images for the image library, each once."""
    found: dict[str, Dataset] = {}
    for finding in material.context.grounded:
        stack = material.stack(finding.grounding) if finding.grounding else None
        if stack is not None:
            image = planes.key_image(stack)
            found.setdefault(image.SOPInstanceUID, image)
    return list(found.values())


def _carrier(template: Dataset) -> Dataset:
    """What highdicom takes patient and study from; not evidence itself."""
    ds = identity.neutral(template)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, CARRIER_UID
    ds.SeriesInstanceUID = CARRIER_UID
    return ds


def _reference_to(made: contexts.ComposedObject, context: contexts.ResultContext) -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = context.findings.study_uid, made.series_uid
    ds.SOPClassUID, ds.SOPInstanceUID = made.sop_class_uid, made.sop_uid
    return ds


def _grouped(evidence: Sequence[Dataset]) -> list[Dataset]:
    """Hierarchical SOP Instance Reference macro (PS3.3 C.17.2.1) of one study."""
    series: dict[str, Dataset] = {}
    for ref in evidence:
        item = series.setdefault(str(ref.SeriesInstanceUID), Dataset())
        if "SeriesInstanceUID" not in item:
            item.SeriesInstanceUID, item.ReferencedSOPSequence = ref.SeriesInstanceUID, []
        instance = Dataset()
        instance.ReferencedSOPClassUID = ref.SOPClassUID
        instance.ReferencedSOPInstanceUID = ref.SOPInstanceUID
        item.ReferencedSOPSequence.append(instance)
    study = Dataset()
    study.StudyInstanceUID = evidence[0].StudyInstanceUID
    study.ReferencedSeriesSequence = list(series.values())
    return [study]


def _schemes(context: contexts.ResultContext) -> list[Dataset]:
    private = {concepts.SCHEME}
    private |= {f.code.scheme for f in context.findings.findings if f.code.scheme.startswith("99")}
    return [
        concepts.scheme_identification(scheme, context.installation.product)
        for scheme in sorted(private)
    ]


def _requests(template: Dataset) -> list[Dataset]:
    """ReferencedRequestSequence (0040,A370), when the images carry an accession number."""
    source = copy.deepcopy(template)  # reading decodes, and the template is copied as it came
    if not source.get("AccessionNumber"):
        return []
    attributes = (source.get("RequestAttributesSequence") or [Dataset()])[0]
    item = Dataset()
    item.StudyInstanceUID = source.StudyInstanceUID
    item.ReferencedStudySequence = []
    item.AccessionNumber = source.AccessionNumber
    for keyword in REQUEST:
        setattr(item, keyword, attributes.get(keyword) or source.get(keyword) or "")
    item.RequestedProcedureCodeSequence = list(
        attributes.get("RequestedProcedureCodeSequence") or []
    )
    return [item]
