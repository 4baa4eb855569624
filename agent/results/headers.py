"""What every result object's header has in common: identity, series, equipment, dates, labels."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from agent.results import context as contexts
from agent.results import equipment, identity
from agent.results.text import description, plain

SERIES_NUMBERS = {"sr": 9000, "sc": 9001, "seg": 9100, "pm": 9200}
"""High, so that they sort behind the scanner's; one number per object within a kind."""
_OFFSET = re.compile(r"^[+-](0\d|1[0-4])[0-5]\d$")


@dataclass(frozen=True)
class Naming:
    """How one object is named within its analysis."""

    kind: str
    label: str
    title: str
    index: int = 0


def constructor_arguments(context: contexts.ResultContext, naming: Naming) -> dict[str, Any]:
    """Arguments that all of highdicom's constructors take."""
    device = context.installation
    return {
        "series_instance_uid": context.uid("series", naming.kind, naming.label),
        "sop_instance_uid": context.uid("instance", naming.kind, naming.label),
        "series_number": SERIES_NUMBERS[naming.kind] + naming.index,
        "instance_number": 1,
        "manufacturer": plain(device.product, 64),
        "manufacturer_model_name": plain(device.product, 64),
        "software_versions": _versions(context),
        "device_serial_number": plain(device.node_name, 64),
    }


def finish(
    dataset: Dataset, context: contexts.ResultContext, template: Dataset, naming: Naming
) -> contexts.ComposedObject:
    """Replace what a library or a clock put into the header by what the context says."""
    _set_dates(dataset, context, template)
    _set_series(dataset, context, template, naming)
    _set_equipment(dataset, context, template)
    dataset.ContentQualification = "RESEARCH"
    identity.copy_identity(template, dataset)
    return contexts.ComposedObject(
        kind=naming.kind,
        label=naming.label,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        dataset=dataset,
    )


def local_time(context: contexts.ResultContext, template: Dataset) -> dt.datetime:
    """The time of creation on the clock that the source's times are given in."""
    offset = str(template.get("TimezoneOffsetFromUTC", ""))
    if context.created_at.tzinfo is None or not _OFFSET.match(offset):
        return context.created_at
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    delta = dt.timedelta(minutes=-minutes if offset[0] == "-" else minutes)
    return context.created_at.astimezone(dt.timezone(delta))


def _set_dates(dataset: Dataset, context: contexts.ResultContext, template: Dataset) -> None:
    moment = local_time(context, template)
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{name}Date", date)
        setattr(dataset, f"{name}Time", time)
    offset = str(template.get("TimezoneOffsetFromUTC", ""))
    # The offset would govern the copied study times too: only the source may state it.
    if context.created_at.tzinfo is not None and _OFFSET.match(offset):
        dataset.TimezoneOffsetFromUTC = offset


def _set_series(
    dataset: Dataset, context: contexts.ResultContext, template: Dataset, naming: Naming
) -> None:
    revision = f" (rev {context.revision})" if context.revision > 1 else ""
    title = plain(naming.title, 44 - len(revision)) + revision
    dataset.SeriesDescription = description(title)
    if naming.kind == "sr":
        return
    if template.get("BodyPartExamined"):
        dataset.BodyPartExamined = template.BodyPartExamined
    # Type 2C: without an unpaired body part it must be there, and the whole head has no side.
    dataset.Laterality = template.get("Laterality", "")
    if dataset.get("BodyPartExamined") in ("HEAD", "BRAIN", "SKULL", "NECK", "HEADNECK"):
        del dataset.Laterality


def _set_equipment(dataset: Dataset, context: contexts.ResultContext, template: Dataset) -> None:
    device = context.installation
    dataset.Manufacturer = plain(device.product, 64)
    dataset.ManufacturerModelName = plain(device.product, 64)
    dataset.SoftwareVersions = _versions(context)
    dataset.DeviceSerialNumber = plain(device.node_name, 64)
    dataset.DeviceUID = device.device_uid
    if device.institution:
        dataset.InstitutionName = plain(device.institution, 64)
    if device.station:
        dataset.StationName = plain(device.station, 16)
    dataset.ContributingEquipmentSequence = equipment.contributing(context, template)


def _versions(context: contexts.ResultContext) -> list[str]:
    pack = context.findings.pack
    versions = [plain(context.installation.version, 64)]
    if pack.name:
        versions.append(plain(f"{pack.name} {equipment.algorithm_version(pack)}", 64))
    return versions
