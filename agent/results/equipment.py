"""Which machines and programs a result comes from: scanner, this installation, the model build."""

from __future__ import annotations

from highdicom import ContributingEquipment
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from agent.results import context as contexts
from agent.results.text import STATEMENT, plain
from inference.findings import PackRef

SCANNER = (
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "StationName",
)


def contributing(context: contexts.ResultContext, template: Dataset) -> list[Dataset]:
    """Items of ContributingEquipmentSequence (0018,A001): scanner, agent, model."""
    items: list[Dataset] = [agent_item(context)]
    if context.findings.pack.name:
        items.append(model_item(context))
    scanner = scanner_item(template)
    return [scanner, *items] if scanner is not None else items


def scanner_item(template: Dataset) -> Dataset | None:
    """The acquisition equipment as its images name it; None when they do not."""
    if not template.get("Manufacturer"):
        return None
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.AcquisitionEquipment)]
    for keyword in SCANNER:
        if template.get(keyword):
            setattr(item, keyword, template.get(keyword))
    return item


def agent_item(context: contexts.ResultContext) -> Dataset:
    """This installation; by its Device UID we recognize results that come back to us."""
    device = context.installation
    return _processing(
        context,
        name=device.product,
        versions=[device.version],
        serial=device.node_name,
        device_uid=device.device_uid,
        institution=device.institution,
        station=device.station,
        what="Study assembly, prioritization and result encoding",
    )


def model_item(context: contexts.ResultContext) -> Dataset:
    """The model build that made the findings."""
    pack = context.findings.pack
    return _processing(
        context,
        name=pack.name,
        versions=[pack.version, f"sha256:{pack.digest[:16]}"],
        serial=pack.digest[:16],
        device_uid=contexts.model_device_uid(pack.name, pack.version, pack.digest),
        what=STATEMENT,
    )


def algorithm_version(pack: PackRef) -> str:
    """Version and weights in one text, for the algorithm identification."""
    version = plain(pack.version, 40) or "none"
    return f"{version}+sha256:{pack.digest[:12]}" if pack.digest else version


def _processing(
    context: contexts.ResultContext,
    *,
    name: str,
    versions: list[str],
    serial: str,
    device_uid: str,
    what: str,
    institution: str = "",
    station: str = "",
) -> Dataset:
    item = ContributingEquipment(
        manufacturer=plain(context.installation.product, 64),
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=plain(name, 64) or None,
        software_versions=[plain(v, 64) for v in versions if v] or None,
        device_serial_number=plain(serial, 64) or None,
        institution_name=plain(institution, 64) or None,
        station_name=plain(station, 16) or None,
        contribution_datetime=context.created_at.strftime("%Y%m%d%H%M%S%z"),
        contribution_description=what,
    )
    item.DeviceUID = device_uid
    return item
