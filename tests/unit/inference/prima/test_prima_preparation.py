"""Studies on disk to series: what is read, what is skipped and why, and where tokens lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation
from factories import dicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from inference.errors import NoVolumeError, VolumeError
from inference.prima import preparation
from inference.prima.preparation import prepare, prepare_official
from inference.prima.selection import read_header
from inference.prima.series import PrimaSeries
from inference.prima.volumes import resize, thin_axis
from inference.study import SeriesInput, StudyInput

CENTER = (12.0, -20.0, 8.0)
BALL = dicom.ball(CENTER, 18, 3000, base=dicom.mr_head)


def image(pixel_id: int, size: tuple[int, int, int] = (100, 60, 5)) -> sitk.Image:
    """A constant image of 7 and of a pixel type."""
    made = sitk.Image(list(size), pixel_id) + 7
    made.SetSpacing([2.0, 3.0, 5.0])
    return sitk.Cast(made, pixel_id)


def study_of(*series: list[Any], folder: Path) -> StudyInput:
    """Series written to files, as the spool holds them."""
    given = []
    for datasets in series:
        files = dicom.save_all(datasets, folder / str(datasets[0].SeriesInstanceUID))
        first = datasets[0]
        given.append(
            SeriesInput(first.SeriesInstanceUID, "MR", str(first.get("SeriesDescription")), files)
        )
    return StudyInput("1.2", "MR", tuple(given))


def spoil_pixels(ds: Dataset) -> None:
    """A compressed image that no codec can read."""
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([b"no image at all "])
    ds["PixelData"].VR = "OB"


def make_colored(ds: Dataset) -> None:
    """Red, green and blue for each pixel."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelData = bytes(64 * 64 * 3)


def brightest_place(series: PrimaSeries) -> Any:
    """LPS position of the centre of the brightest token."""
    token = int(series.patches.gather().mean(axis=(1, 2, 3)).argmax())
    place = np.unravel_index(token, series.patches.grid)
    return (series.grid_to_patient @ [*place, 1.0])[:3]


@pytest.mark.parametrize(
    "pixel_id",
    [
        sitk.sitkUInt8,
        sitk.sitkInt16,
        sitk.sitkUInt16,
        sitk.sitkInt32,
        sitk.sitkFloat32,
        sitk.sitkFloat64,
    ],
)
def test_official_rules_fill_with_the_number_of_the_pixel_type(pixel_id: int):
    """The last row and column of an enlarged image; the safe rules repeat the edge."""
    official = sitk.GetArrayFromImage(resize(image(pixel_id), "official"))
    safe = sitk.GetArrayFromImage(resize(image(pixel_id), "safe"))
    assert official.shape == safe.shape == (5, 256, 256)
    assert official[0, -1, -1] == pixel_id
    assert (safe == 7).all()
    assert official.dtype == safe.dtype


def test_the_field_of_view_is_kept():
    """Rows and columns are scaled each on their own; slices stay."""
    resized = resize(image(sitk.sitkUInt16), "official")
    assert resized.GetSpacing() == pytest.approx((200 / 256, 180 / 256, 5.0))


@pytest.mark.parametrize(("plane", "axis"), [("axial", 0), ("coronal", 1), ("sagittal", 2)])
def test_256_slices_are_cut_across_the_direction_of_acquisition(plane: str, axis: int):
    """All sides equal: the published code fails, here the slices' direction tells."""
    cube = sitk.Image([256, 256, 256], sitk.sitkUInt8)
    affine = dicom.series_affine(256, 256, 256, (1.0, 1.0, 1.0), plane=plane)
    cube.SetDirection(affine[:3, 2::-1].ravel().tolist())
    assert thin_axis(sitk.DICOMOrient(cube, "LPS"), cube) == axis


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "oblique"])
def test_tokens_know_their_place_in_the_patient(plane: str, tmp_path: Path):
    """The brightest token lies where the ball is, by either set of rules, padding and all."""
    datasets = dicom.mr_series(26, 70, 60, spacing=(6.0, 3.0, 3.4), plane=plane, pixels=BALL)
    files = tuple(dicom.save(ds, tmp_path / "1" / f"{n}.dcm") for n, ds in enumerate(datasets))
    (mine,) = prepare(StudyInput("1", "MR", (SeriesInput("1", "MR", "", files),))).series
    (official,) = prepare_official(tmp_path).series
    for series in (mine, official):
        assert brightest_place(series) == pytest.approx(CENTER, abs=26)


def test_the_agents_own_path_sorts_by_position(tmp_path: Path):
    """Names that run against the slices change the official volume, not the agent's."""
    up = dicom.mr_series(8, 64, 64, pixels=BALL, key="1")
    down = dicom.mr_series(8, 64, 64, pixels=BALL, key="2")
    for number in range(8):
        dicom.save(up[number], tmp_path / "a" / "1" / f"{number}.dcm")
        dicom.save(down[number], tmp_path / "b" / "1" / f"{9 - number}.dcm")

    def volume(folder: str, *, own: bool) -> Any:
        if not own:
            return prepare_official(tmp_path / folder).series[0].patches.volume
        files = tuple((tmp_path / folder / "1").iterdir())
        study = StudyInput("1", "MR", (SeriesInput("1", "MR", "", files),))
        return prepare(study).series[0].patches.volume

    assert (volume("a", own=True) == volume("b", own=True)).all()
    assert (volume("a", own=False)[::-1] == volume("b", own=False)).all()


def test_a_bad_series_costs_only_itself(tmp_path: Path):
    """Official directories: broken, colored, empty and loose entries are skipped with a reason."""
    good = dicom.mr_series(6, 64, 64)
    dicom.save_all(good, tmp_path / "1_good")
    for name, spoil in (("2_broken", spoil_pixels), ("2_colored", make_colored)):
        datasets = dicom.mr_series(6, 64, 64, key=name)
        for ds in datasets:
            spoil(ds)
        dicom.save_all(datasets, tmp_path / name)
    (tmp_path / "3_empty").mkdir()
    (tmp_path / "4_text").mkdir()
    (tmp_path / "4_text" / "notes.txt").write_text("no image")
    (tmp_path / "5.txt").write_text("loose")
    nested = tmp_path / "6_nested" / "deeper"
    dicom.save_all(dicom.mr_series(6, 64, 64, key="3"), nested)
    study = prepare_official(tmp_path)
    assert len(study.series) == 1
    reasons = {item.series: item.reason for item in study.skipped}
    assert set(reasons) == {"2_broken", "2_colored", "3_empty", "4_text", "5.txt", "6_nested"}
    assert reasons["5.txt"] == "not a directory"
    assert not any(str(tmp_path) in reason for reason in reasons.values())


def test_only_the_most_common_size_is_read(tmp_path: Path):
    """Localizers of another size among the slices are left out."""
    dicom.save_all(dicom.mr_series(3, 32, 32, key="1"), tmp_path / "1")
    others = dicom.mr_series(6, 64, 64, key="1")
    for number, ds in enumerate(others):
        dicom.save(ds, tmp_path / "1" / f"b{number}.dcm")
    (series,) = prepare_official(tmp_path).series
    assert series.patches.volume.shape == (8, 256, 256)


def test_a_study_without_a_series_is_refused(tmp_path: Path):
    """Nothing read must not read as nothing found."""
    (tmp_path / "1").mkdir()
    with pytest.raises(NoVolumeError, match="no DICOM series"):
        prepare_official(tmp_path)


def test_over_long_series_are_skipped_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both paths keep the reason."""
    monkeypatch.setattr(preparation, "MAX_TOKENS", 64 * 3)
    short, long = dicom.mr_series(6, 64, 64, key="1"), dicom.mr_series(16, 64, 64, key="2")
    given = study_of(short, long, folder=tmp_path)
    for study in (prepare(given), prepare_official(tmp_path)):
        assert len(study.series) == 1
        assert "too long: 256 tokens" in study.skipped[0].reason


def test_the_agents_own_path_tells_what_it_left_out(tmp_path: Path):
    """One report per series; constant and too short ones are skipped with their reason."""
    flat = dicom.mr_series(6, 64, 64, key="2", pixels=np.full((6, 64, 64), 9.0))
    few = dicom.mr_series(2, 64, 64, key="3")
    study = prepare(study_of(dicom.mr_series(6, 64, 64), flat, few, folder=tmp_path))
    assert [report.used for report in study.reports] == [True, False, False]
    assert "no foreground" in study.reports[1].reason
    assert len(study.skipped) == 2
    assert len(study.problems) == 1  # two slices are nothing to read, a flat volume is a problem


def test_names_and_description_come_from_the_files(tmp_path: Path):
    """SeriesDescription and ProtocolName of the series, StudyDescription of the study."""
    datasets = dicom.mr_series(
        6, 64, 64, SeriesDescription="AX T2*", ProtocolName="Brain", StudyDescription="MR BRAIN WO"
    )
    study = prepare(study_of(datasets, folder=tmp_path))
    assert study.series[0].name == "AX_T2_star_-Brain-Protocol"
    assert study.description == "MR BRAIN WO"


def test_a_study_without_description_gets_a_plain_one(tmp_path: Path):
    """The model always reads some description."""
    study = prepare(study_of(dicom.mr_series(6, 64, 64, StudyDescription=None), folder=tmp_path))
    assert study.description == preparation.DESCRIPTION


def test_a_header_that_gives_no_name_gives_the_directorys(tmp_path: Path):
    """Texts of several values are no name."""
    datasets = dicom.mr_series(6, 64, 64, SeriesDescription=["a", "b"])
    dicom.save_all(datasets, tmp_path / "7_odd")
    assert prepare_official(tmp_path).series[0].name == "7_odd"


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM" + bytes(40)])
def test_a_damaged_header_is_an_answer(tmp_path: Path, content: bytes):
    """Whatever pydicom raises, the series only loses its name."""
    file = tmp_path / "x.dcm"
    file.write_bytes(content)
    assert read_header(file).name("directory") in ("directory", "UNK-")
    assert read_header(tmp_path / "missing.dcm").name("directory") == "directory"


def test_values_that_are_no_numbers_are_refused():
    """Not a finding from NaN."""
    volume = type("V", (), {"array": np.array([[[np.nan, 1.0]]], np.float32)})
    with pytest.raises(VolumeError, match="no numbers"):
        preparation._refuse_unreadable(volume)
