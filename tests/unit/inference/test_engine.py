"""A study goes in, findings come out: placed, partial, refused or failed, never an exception."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import dicom, model_packs
from pydicom.dataset import Dataset

from inference import devices, packs
from inference.engine import Engine
from inference.errors import DeviceError, OutOfMemoryError, PackError
from inference.explain import finding_mask
from inference.findings import Findings, Status
from inference.neurovfm import batching, loading
from inference.study import SeriesInput, StudyInput
from inference.volumes import read_series

BALL_MM = (20.0, -18.0, 12.0)
RADIUS_MM = 24.0
SIZE = (24, 56, 56)


@pytest.fixture(scope="session")
def random_pack(tmp_path_factory: pytest.TempPathFactory):
    """A pack with random weights."""
    return model_packs.random_pack(tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="session")
def bright_pack(tmp_path_factory: pytest.TempPathFactory):
    """A pack that finds bright tissue."""
    return model_packs.bright_pack(tmp_path_factory.mktemp("bright"))


@pytest.fixture(autouse=True)
def one_thread():
    """Small models are faster without threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def brain(value: float) -> dicom.Field:
    """A head of one tissue in air."""

    def field(points: np.ndarray) -> np.ndarray:
        radius = np.linalg.norm(points / np.array([80.0, 95.0, 80.0]), axis=-1)
        return np.where(radius < 1, value, -1000.0)

    return field


def ct(key: str = "1", *, ball: bool = True, **options: Any) -> list[Dataset]:
    """A CT of one tissue (35 HU), with a bright ball (75 HU) unless told otherwise."""
    field = dicom.ball(BALL_MM, RADIUS_MM, 75, base=brain(35)) if ball else brain(35)
    return dicom.ct_series(*SIZE, key=key, pixels=field, **options)


def series(folder: Path, datasets: Sequence[Dataset]) -> SeriesInput:
    """A saved series as input."""
    first = datasets[0]
    files = dicom.save_all(datasets, folder / str(first.SeriesInstanceUID))
    return SeriesInput(str(first.SeriesInstanceUID), first.Modality, "HEAD", files)


def study(folder: Path, *series_list: Sequence[Dataset], modality: str = "CT") -> StudyInput:
    """A saved study as input."""
    inputs = tuple(series(folder, datasets) for datasets in series_list)
    return StudyInput(str(series_list[0][0].StudyInstanceUID), modality, inputs)


def test_every_label_is_reported_with_the_pack_that_said_so(random_pack: Path, tmp_path: Path):
    """Present or absent, in the pack's order, with thresholds, acuity and digest."""
    findings = Engine([random_pack], "cpu").analyse(study(tmp_path, ct()), "random")
    assert findings.status is Status.SUCCEEDED
    assert [f.label for f in findings.findings] == ["bleed", "fracture"]
    assert all(0 < f.probability < 1 for f in findings.findings)
    assert findings.findings[0].present
    assert findings.pack == packs.load_manifest(random_pack).ref
    assert findings.device == "cpu"
    assert set(findings.timings_s) == {"read", "encode", "grounding", "load", "total"}
    assert findings.reason == ""
    (report,) = findings.series
    assert (report.used, report.slices, report.reason) == (True, 24, "")


def test_findings_survive_json(random_pack: Path, tmp_path: Path):
    """What the engine answers can be stored and composed from after a restart."""
    findings = Engine([random_pack], "cpu").analyse(study(tmp_path, ct()), "random")
    back = Findings.from_json(findings.to_json())
    assert back.findings[0].probability == findings.findings[0].probability
    assert back.findings[0].grounding is not None


@pytest.mark.parametrize("which", ["classify_then_aggregate", "aggregate_then_classify"])
def test_both_heads_ground_their_positives(tmp_path: Path, which: str):
    """Saliency is 0..1 on the token grid, in a series and image of the study."""
    pack = model_packs.random_pack(tmp_path / "pack", which=which)
    given = study(tmp_path, ct())
    findings = Engine([pack], "cpu").analyse(given, "random")
    place = findings.findings[0].grounding
    assert place is not None
    assert place.saliency.max() == 1.0
    assert place.saliency.min() >= 0.0
    assert place.series_uid == given.series[0].series_uid
    assert place.key_sop_uid in {path.stem for path in given.series[0].files}


def test_labels_without_a_place_are_not_grounded(tmp_path: Path):
    """Atrophy points nowhere in particular; far below threshold nothing is worth a look."""
    labels = (
        model_packs.label("atrophy", threshold=0.0, localized=False),
        model_packs.label("absent", threshold=1.0),
    )
    pack = model_packs.random_pack(tmp_path / "pack", ct=labels)
    findings = Engine([pack], "cpu").analyse(study(tmp_path, ct()), "random")
    assert findings.findings[0].present
    assert findings.findings[0].grounding is None
    assert findings.findings[1].probability < 0.5 or findings.findings[1].grounding is not None


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "oblique"])
@pytest.mark.parametrize("tilt_deg", [0.0, 15.0])
def test_the_finding_lies_where_the_ball_is(
    bright_pack: Path, tmp_path: Path, plane: str, tilt_deg: float
):
    """From files to a mask on the source frames: on the lesion, shown by its best slice."""
    given = study(tmp_path, ct(plane=plane, tilt_deg=tilt_deg))
    findings = Engine([bright_pack], "cpu").analyse(given, "bright")
    (finding,) = findings.findings
    assert finding.present
    assert finding.grounding is not None
    (volume,) = read_series(given.series[0]).volumes
    mask = finding_mask(finding.grounding, volume.affine, volume.array.shape, volume.positions_mm)
    points = dicom.voxel_positions(volume.affine, volume.array.shape)
    center = points[mask].mean(axis=0)
    assert np.linalg.norm(center - BALL_MM) < 8.0
    truth = np.linalg.norm(points - BALL_MM, axis=-1) < RADIUS_MM
    assert (mask & truth).sum() > 0.5 * mask.sum()
    sops = [f.sop_uid for f in volume.frames]
    key = sops.index(finding.grounding.key_sop_uid)
    assert truth[key].sum() > 0.7 * truth.sum(axis=(1, 2)).max()


def test_without_the_ball_nothing_is_found(bright_pack: Path, tmp_path: Path):
    """The hand-made pack is no constant: the same head without the lesion is negative."""
    findings = Engine([bright_pack], "cpu").analyse(study(tmp_path, ct(ball=False)), "bright")
    assert findings.status is Status.SUCCEEDED
    assert findings.positives == ()


def test_the_series_that_shows_it_is_chosen(bright_pack: Path, tmp_path: Path):
    """Two series are read as one study; the finding is placed in the one with the ball."""
    given = study(tmp_path, ct("1", ball=False), ct("2"))
    findings = Engine([bright_pack], "cpu").analyse(given, "bright")
    place = findings.findings[0].grounding
    assert place is not None
    assert place.series_uid == given.series[1].series_uid
    assert [r.used for r in findings.series] == [True, True]


def test_an_mr_study_uses_the_mr_head(random_pack: Path, tmp_path: Path):
    """The modality of the study chooses the head."""
    given = study(tmp_path, dicom.mr_series(*SIZE), modality="MR")
    findings = Engine([random_pack], "cpu").analyse(given, "random")
    assert [f.label for f in findings.findings] == ["tumor"]


def test_skipped_series_are_reported_with_their_reason(random_pack: Path, tmp_path: Path):
    """A localizer and a series of the other modality are no failures."""
    localizer = dicom.ct_series(5, 32, 32, key="3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    other = dicom.mr_series(8, 32, 32, key="4", study_uid=dicom.uid("study", "CT", "1"))
    findings = Engine([random_pack], "cpu").analyse(
        study(tmp_path, localizer, ct(), other), "random"
    )
    assert findings.status is Status.SUCCEEDED
    assert [r.used for r in findings.series] == [False, True, False]
    assert findings.series[0].reason == "localizer"
    assert findings.series[2].reason == "modality MR, the model reads CT"


def test_a_broken_series_makes_the_result_partial(random_pack: Path, tmp_path: Path):
    """What could be read is answered, and what could not is said."""
    broken = ct("2", ImagePositionPatient=None)
    findings = Engine([random_pack], "cpu").analyse(study(tmp_path, ct(), broken), "random")
    assert findings.status is Status.PARTIAL
    assert findings.findings
    assert findings.reason.startswith("series 2 not read: no frame has a usable position")
    assert not findings.series[1].used


def test_missing_slices_make_the_result_partial(random_pack: Path, tmp_path: Path):
    """A hole in the only series is no success."""
    datasets = ct()
    findings = Engine([random_pack], "cpu").analyse(
        study(tmp_path, [*datasets[:9], *datasets[12:]]), "random"
    )
    assert findings.status is Status.PARTIAL
    assert "3 slices missing" in findings.reason
    assert findings.series[0].used


def test_a_volume_beyond_the_models_field_is_left_out(tmp_path: Path):
    """One oversized series does not cost the study its answer."""
    pack = model_packs.random_pack(tmp_path / "pack", field_tokens=(8, 12))
    whole_spine = ct("2", spacing=(24.0, 3.0, 3.0))
    findings = Engine([pack], "cpu").analyse(study(tmp_path, ct(), whole_spine), "random")
    assert findings.status is Status.PARTIAL
    assert findings.series[0].used
    assert findings.series[1].reason == "larger than the model's field of [8, 12, 12] tokens"


def test_nothing_usable_is_not_attempted(random_pack: Path, tmp_path: Path):
    """The reasons of all series make the study's."""
    localizer = dicom.ct_series(5, 32, 32, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    findings = Engine([random_pack], "cpu").analyse(study(tmp_path, localizer), "random")
    assert findings.status is Status.NOT_ATTEMPTED
    assert findings.reason == "no usable series: localizer"
    assert findings.findings == ()


def test_air_is_not_attempted(random_pack: Path, tmp_path: Path):
    """A volume without tissue gives no tokens, and no answer."""
    empty = dicom.ct_series(*SIZE, pixels=np.full(SIZE, -1000.0))
    findings = Engine([random_pack], "cpu").analyse(study(tmp_path, empty), "random")
    assert findings.status is Status.NOT_ATTEMPTED
    assert "constant" in findings.reason


def test_a_modality_without_a_head_is_not_attempted(random_pack: Path):
    """A pack that does not read it says so."""
    findings = Engine([random_pack], "cpu").analyse(StudyInput("1.2", "PT", ()), "random")
    assert findings.status is Status.NOT_ATTEMPTED
    assert findings.reason == "the pack does not read PT"


def test_a_study_without_series_is_not_attempted(random_pack: Path):
    """Nothing in, a reason out."""
    findings = Engine([random_pack], "cpu").analyse(StudyInput("1.2", "CT", ()), "random")
    assert findings.status is Status.NOT_ATTEMPTED
    assert findings.reason == "the study has no series"


def test_progress_tells_the_steps(random_pack: Path, tmp_path: Path):
    """Loading, every series, and the analysis are announced."""
    told: list[str] = []
    Engine([random_pack], "cpu").analyse(study(tmp_path, ct()), "random", told.append)
    assert told[0] == "loading pack random"
    assert told[1] == "reading series 1 of 1"
    assert told[2].startswith("analysing ")


def test_a_pack_is_loaded_once(random_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Models stay resident: the second study finds them."""
    loads: list[Path] = []
    original = loading.load

    def counting(directory: Path, *rest: Any) -> loading.LoadedPack:
        loads.append(directory)
        return original(directory, *rest)

    monkeypatch.setattr(loading, "load", counting)
    engine = Engine([random_pack], "cpu")
    given = study(tmp_path, ct())
    first, second = engine.analyse(given, "random"), engine.analyse(given, "random")
    assert len(loads) == 1
    assert [f.probability for f in first.findings] == [f.probability for f in second.findings]


def test_an_altered_pack_is_refused(tmp_path: Path):
    """Weights are verified before they are loaded."""
    pack = model_packs.random_pack(tmp_path / "pack")
    weights = pack / "ct" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(PackError, match=r"ct/model\.safetensors: SHA-256 differs"):
        Engine([pack], "cpu").analyse(study(tmp_path, ct()), "random")


def test_labels_must_match_the_heads_outputs(tmp_path: Path):
    """A label list that is one short would shift every finding's name."""
    pack = model_packs.random_pack(tmp_path / "pack")
    manifest = packs.load_manifest(pack)
    head = replace(manifest.heads[0], labels=manifest.heads[0].labels[:1])
    packs.write_manifest(pack, replace(manifest, heads=(head, manifest.heads[1])))
    with pytest.raises(PackError, match="has 2 outputs, the manifest lists 1"):
        Engine([pack], "cpu").analyse(study(tmp_path, ct()), "random")


def test_an_unknown_pack_is_named(random_pack: Path):
    """The error lists what is installed."""
    with pytest.raises(PackError, match="'other' is not installed; installed: random"):
        Engine([random_pack], "cpu").pack("other")


def test_two_packs_of_one_name_are_refused(random_pack: Path):
    """Which one would have answered?"""
    with pytest.raises(PackError, match="two packs are named 'random'"):
        Engine([random_pack, random_pack], "cpu")


def test_an_unknown_family_is_refused_at_once(tmp_path: Path):
    """Not by the first study in the night."""
    pack = model_packs.random_pack(tmp_path / "pack")
    packs.write_manifest(pack, replace(packs.load_manifest(pack), family="other"))
    with pytest.raises(PackError, match="family 'other' is not known; this version reads neurovfm"):
        Engine([pack], "cpu")


def test_an_absent_device_is_named(random_pack: Path):
    """A GPU asked for and not there is an error at start."""
    with pytest.raises(DeviceError, match="'quantum' is not known"):
        Engine([random_pack], "quantum")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="0 GPUs are visible"):
            Engine([random_pack], "cuda:3")


def failing(error: Exception, times: int) -> tuple[Callable[..., Any], list[int]]:
    """An `embed` that fails at first and records its token budgets."""
    budgets: list[int] = []
    original = batching.embed

    def embed(*args: Any, token_budget: int, **options: Any) -> torch.Tensor:
        budgets.append(token_budget)
        if len(budgets) <= times:
            raise error
        return original(*args, token_budget=token_budget, **options)

    return embed, budgets


def test_out_of_memory_is_tried_smaller(
    random_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second attempt asks for less and gives the same answer."""
    engine, given = Engine([random_pack], "cpu"), study(tmp_path, ct())
    expected = engine.analyse(given, "random")
    embed, budgets = failing(OutOfMemoryError("full"), times=1)
    monkeypatch.setattr(batching, "embed", embed)
    findings = engine.analyse(given, "random")
    assert budgets[1] < budgets[0]
    assert findings.status is Status.SUCCEEDED
    np.testing.assert_allclose(
        [f.probability for f in findings.findings],
        [f.probability for f in expected.findings],
        rtol=1e-5,
    )


def test_a_study_too_large_for_the_device_fails_with_a_reason(
    random_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After the smallest attempt the result says so, and the engine lives on."""
    embed, budgets = failing(OutOfMemoryError("full"), times=2)
    monkeypatch.setattr(batching, "embed", embed)
    engine, given = Engine([random_pack], "cpu"), study(tmp_path, ct())
    findings = engine.analyse(given, "random")
    assert findings.status is Status.FAILED
    assert findings.reason == "the study does not fit the device's memory"
    assert len(budgets) == 2
    assert engine.analyse(given, "random").status is Status.SUCCEEDED


def test_an_unexpected_error_fails_the_study_without_its_text(
    random_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Texts of foreign errors may hold anything; the result holds their kind."""
    embed, _ = failing(ZeroDivisionError("SECRET^NAME"), times=9)
    monkeypatch.setattr(batching, "embed", embed)
    findings = Engine([random_pack], "cpu").analyse(study(tmp_path, ct()), "random")
    assert findings.status is Status.FAILED
    assert findings.reason == "unexpected ZeroDivisionError in the model"


def test_a_failed_device_is_raised_to_be_tried_elsewhere(
    random_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A dead GPU says nothing of the study: the error is transient and reaches the caller."""
    embed, _ = failing(torch.AcceleratorError("CUDA error: unspecified launch failure"), times=9)
    monkeypatch.setattr(batching, "embed", embed)
    with pytest.raises(DeviceError) as caught:
        Engine([random_pack], "cpu").analyse(study(tmp_path, ct()), "random")
    assert not caught.value.permanent


def test_devices_are_chosen_and_described():
    """Auto takes a GPU where there is one."""
    assert devices.choose("cpu").type == "cpu"
    assert devices.choose("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert devices.describe(torch.device("cpu")) == "cpu"
    devices.release_memory(torch.device("cpu"))
