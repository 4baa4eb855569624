"""Stored instances as DICOM JSON (PS3.18 annex F): metadata, search answers, STOW answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from dicom_nodes.web.errors import NotThere, Undecodable
from dicom_nodes.web.inflation import check_inflation

JSON = "application/dicom+json"
MAX_INLINE_BYTES = 1024
"""Longer binary values become a BulkDataURI."""
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_AVAILABLE_SYNTAX = 0x00083002

Element = dict[str, Any]


@dataclass(frozen=True)
class Opened:
    """The header of a file, up to its pixel data.

    Attributes:
        pixel_tag, pixel_vr: of its pixel data; None = it has none.
        pixel_offset: where that element begins in the file; None in a deflated file.
    """

    dataset: FileDataset
    transfer_syntax_uid: str
    pixel_tag: int | None = None
    pixel_vr: str = ""
    pixel_offset: int | None = None

    @property
    def frames(self) -> int:
        """How many frames the pixel data has; 0 without."""
        if self.pixel_tag is None:
            return 0
        try:
            return max(int(self.dataset.get("NumberOfFrames") or 1), 1)
        except (TypeError, ValueError):
            return 1


def open_header(path: Path) -> Opened:
    """Read all of a file but its pixel data.

    Raises:
        OSError: the file is gone.
        Undecodable: it cannot be parsed.
        TooLarge: it would inflate beyond the limit.
    """
    pixels: list[tuple[int, str]] = []

    def at_pixels(tag: BaseTag, vr: str | None, _length: int) -> bool:
        if tag in PIXEL_TAGS:
            pixels.append((int(tag), vr or ""))
        return bool(pixels)

    check_inflation(path)
    with path.open("rb") as stream:
        try:
            dataset = read_partial(stream, stop_when=at_pixels)
        except OSError:
            raise
        except Exception as error:  # a parser on stored foreign bytes fails in many ways
            raise Undecodable(f"the instance cannot be parsed ({type(error).__name__})") from error
        offset = stream.tell()
    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    if not pixels:
        return Opened(dataset, str(syntax))
    tag, vr = pixels[0]
    deflated = bool(syntax) and syntax.is_deflated
    return Opened(dataset, str(syntax), tag, vr or "OW", None if deflated else offset)


def metadata(opened: Opened, url: str) -> dict[str, Element]:
    """The instance without its bulk data (PS3.18 10.4.1.1.2).

    Args:
        opened: its header.
        url: of the instance; bulk data are below it.
    """
    places = {id(element): place for element, place in _walk(opened.dataset, "")}

    def bulk(element: DataElement) -> str:
        return f"{url}/bulkdata/{places[id(element)]}"

    answer = to_json(opened.dataset, bulk)
    if opened.pixel_tag is not None:
        tag = f"{opened.pixel_tag:08X}"
        answer[tag] = {"vr": opened.pixel_vr, "BulkDataURI": f"{url}/bulkdata/{tag}"}
    if opened.transfer_syntax_uid:
        answer[f"{_AVAILABLE_SYNTAX:08X}"] = {"vr": "UI", "Value": [opened.transfer_syntax_uid]}
    return dict(sorted(answer.items()))


def to_json(dataset: Dataset, bulk: Callable[[DataElement], str] | None = None) -> dict[str, Any]:
    """DICOM JSON of a dataset; values that are none of their VR's are left out."""
    answer: dict[str, Any] = dataset.to_json_dict(
        bulk_data_threshold=MAX_INLINE_BYTES if bulk else 1 << 40,
        bulk_data_element_handler=bulk,
        suppress_invalid_tags=True,
    )
    return answer


def bulk_value(opened: Opened, place: str) -> bytes:
    """The binary value at ``tag`` or ``tag/item/tag``, as `metadata` names it; not pixel data.

    Raises:
        NotThere: there is no such value.
    """
    dataset: Dataset = opened.dataset
    *steps, last = place.split("/")
    try:
        for tag, item in zip(steps[::2], steps[1::2], strict=True):
            dataset = dataset[int(tag, 16)].value[int(item)]
        value = dataset[int(last, 16)].value
    except (KeyError, ValueError, IndexError, TypeError):
        raise NotThere("the instance holds no such value") from None
    if not isinstance(value, bytes):
        raise NotThere("that value is no bulk data")
    return value


def elements(values: Mapping[str, Any]) -> dict[str, Element]:
    """DICOM JSON of keyword -> text, number, list of such, or None for empty."""
    answer = {}
    for keyword, value in values.items():
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(f"{keyword} is no keyword of the dictionary")
        answer[f"{tag:08X}"] = _element(dictionary_VR(tag), value)
    return dict(sorted(answer.items()))


def picked(header: Mapping[str, Element], tags: Iterable[str]) -> dict[str, Element]:
    """Those elements of a header that were asked for and are there."""
    return {tag: header[tag] for tag in tags if tag in header}


def _element(vr: str, value: Any) -> Element:
    values = value if isinstance(value, (list, tuple)) else [value]
    kept = [one for one in values if one is not None and one != ""]
    if not kept:
        return {"vr": vr}
    if vr == "PN":
        return {"vr": vr, "Value": [_person(str(one)) for one in kept]}
    if vr == "SQ":
        return {"vr": vr, "Value": [elements(one) for one in kept]}
    return {"vr": vr, "Value": kept}


def _person(name: str) -> dict[str, str]:
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False)
    return {kind: group for kind, group in groups if group}


def _walk(dataset: Dataset, above: str) -> Iterable[tuple[DataElement, str]]:
    """Every element that may be bulk, with its place."""
    for element in dataset:
        place = f"{above}{int(element.tag):08X}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield from _walk(item, f"{place}/{number}/")
        else:
            yield element, place
