"""Put per-frame pixel objects (SEG, map) onto the planes of the source frames, one to one.

highdicom derives plane positions and derivation references from source *images*. A source frame
may be an image of its own or a frame of a multi-frame image, and only some may be wanted; so each
wanted frame is presented to highdicom as a stand-in image with its geometry alone, and the
references are then pointed at the true instance and frame. This is also why a tilted gantry or
uneven spacing needs no special case: every plane carries its own position.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage

from agent.results import context as contexts
from agent.results import identity
from agent.results.material import SourceStack

LOSSY = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Pixels on the planes of a stack: affine (k, r, c, 1) -> LPS mm, [K, 3] plane positions."""

    affine: Matrix
    positions_mm: Matrix
    rows: int
    columns: int


def stand_ins(stack: SourceStack, indices: Iterable[int], coarseness: int = 1) -> list[Dataset]:
    """Images with the geometry of the stack's frames, each pixel `coarseness` source pixels wide.

    Args:
        stack: the source frames.
        indices: of the wanted frames, in the stack's order.
        coarseness: 1 for the source's own matrix.
    """
    plane_grid = grid(stack, coarseness)
    common = _common_geometry(stack, plane_grid)
    images = []
    for k in indices:
        ds = copy.deepcopy(common)
        ds.SOPInstanceUID = f"2.25.{k + 1}"
        ds.ImagePositionPatient = _decimals(plane_grid.positions_mm[k])
        images.append(ds)
    return images


def key_image(stack: SourceStack) -> Dataset:
    """The stack's key image with its own identifiers and its geometry, for the image library."""
    ds = stand_ins(stack, [stack.key])[0]
    frame = stack.frames[stack.key]
    ds.SOPClassUID, ds.SOPInstanceUID = frame.sop_class_uid, frame.sop_uid
    if not stack.frame_of_reference_uid:
        del ds.FrameOfReferenceUID
    return ds


def grid(stack: SourceStack, coarseness: int = 1) -> Grid:
    """The pixel grid of the stack's planes, with pixels `coarseness` source pixels wide.

    The first large pixel's center lies between the centers of the source pixels it covers.
    """
    shape, frame = stack.geometry, stack.frames[0]
    affine = shape.affine.copy()
    offset = (coarseness - 1) / 2 * (affine[:3, 1] + affine[:3, 2])
    affine[:3, 1:3] *= coarseness
    affine[:3, 3] += offset
    return Grid(
        affine=affine,
        positions_mm=shape.positions_mm + offset,
        rows=-(-frame.rows // coarseness),
        columns=-(-frame.columns // coarseness),
    )


def point_at_source(dataset: Dataset, stack: SourceStack) -> None:
    """Replace every reference to a stand-in by the instance and frame it stood for."""
    for item in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in item.get("DerivationImageSequence", []):
            for ref in derivation.SourceImageSequence:
                frame = stack.frames[_index(ref.ReferencedSOPInstanceUID)]
                ref.ReferencedSOPClassUID = frame.sop_class_uid
                ref.ReferencedSOPInstanceUID = frame.sop_uid
                if frame.frames_in_file > 1:
                    ref.ReferencedFrameNumber = frame.frame_number
    instances: dict[str, str] = {}
    for ref in dataset.SourceImageSequence:
        frame = stack.frames[_index(ref.ReferencedSOPInstanceUID)]
        instances.setdefault(frame.sop_uid, frame.sop_class_uid)
    dataset.SourceImageSequence = _instance_items(instances)
    series = Dataset()
    series.SeriesInstanceUID = stack.series_uid
    series.ReferencedInstanceSequence = _instance_items(instances)
    dataset.ReferencedSeriesSequence = [series]
    _set_dimension_organization(dataset, str(dataset.SOPInstanceUID))


def usable(stack: SourceStack | None, max_frames: int) -> str:
    """Why no pixel object can lie on this stack; empty when one can."""
    if stack is None:
        return "source frames have no usable geometry"
    if not stack.frame_of_reference_uid:
        return "source frames share no frame of reference"
    if len(stack.frames) > max_frames:
        return "more source frames than the limit"
    return ""


def _common_geometry(stack: SourceStack, plane_grid: Grid) -> Dataset:
    modality, slice_spacing = stack.frames[0].modality, stack.geometry.spacing_mm[0]
    ds = identity.neutral(stack.header)
    ds.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    ds.SeriesInstanceUID = stack.series_uid
    ds.Modality = modality
    ds.FrameOfReferenceUID = stack.frame_of_reference_uid
    ds.PositionReferenceIndicator = stack.header.get("PositionReferenceIndicator") or ""
    ds.Rows, ds.Columns = plane_grid.rows, plane_grid.columns
    affine = plane_grid.affine
    spacing_r, spacing_c = (float(np.linalg.norm(affine[:3, axis])) for axis in (1, 2))
    ds.ImageOrientationPatient = _decimals([*affine[:3, 2] / spacing_c, *affine[:3, 1] / spacing_r])
    ds.PixelSpacing = _decimals([spacing_r, spacing_c])
    ds.SliceThickness = stack.header.get("SliceThickness") or _decimals([slice_spacing])[0]
    ds.SpacingBetweenSlices = _decimals([slice_spacing])[0]
    for keyword in LOSSY:
        if stack.header.get(keyword):
            setattr(ds, keyword, stack.header.get(keyword))
    return ds


def _decimals(values: Sequence[float] | Matrix) -> list[str]:
    """Decimal strings of at most 16 characters (VR DS)."""
    return [f"{float(v) + 0.0:.8f}".rstrip("0").rstrip(".")[:16] for v in values]


def _index(stand_in_uid: str) -> int:
    return int(str(stand_in_uid).removeprefix("2.25.")) - 1


def _instance_items(instances: dict[str, str]) -> list[Dataset]:
    items = []
    for sop_uid, sop_class_uid in instances.items():
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = sop_uid
        items.append(item)
    return items


def _set_dimension_organization(dataset: Dataset, seed: str) -> None:
    """Replace the random UID of the dimension organization by one that a repeat gives again."""
    uid = contexts.uid_for(seed, "dimensions", "organization")
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = uid
