"""The published checkpoint's layout in the running agent: import, analysis, order, SR, page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from factories import agent_process, golden
from factories.agent_process import AgentProcess
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from agent import cli
from db.models import Analysis, Result, Study
from inference.findings import Findings
from inference.prima import pipeline
from inference.prima.config import read_config

pytestmark = pytest.mark.slow

DESCRIPTION = "MRI BRAIN WO AND W CONTRAST"
"""What the published configuration tells the model."""
P4, P2 = golden.case("p4_full_model"), golden.case("p2_vqvae")
CHECKPOINT = P4 / "primafullmodel107.pt"
LEVELS = {"none": "LOW", "low": "HIGH", "medium": "HIGH", "high": "HIGH"}


@dataclass(frozen=True)
class Sent:
    """A study as it was sent, and as the published pipeline reads it."""

    uid: str
    files: tuple[Path, ...]
    directory: Path


def study(folder: Path, count: int) -> Sent:
    """A study of the golden case's transverse series, `count` times, mirrored from the second on.

    256 x 256 and named in the order of its slices: the published rules and the agent's safe ones
    agree on it, which they do on purpose not for the golden study as a whole (docs/parity.md).
    """
    source = next(golden.case("p1_prima_preprocess").glob("study_*/2_ax"))
    slices = [pydicom.dcmread(path) for path in sorted(source.iterdir())]
    slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    uid, files = generate_uid(), []
    for number in range(count):
        place = folder / f"{number}_ax"
        place.mkdir(parents=True)
        series = generate_uid(entropy_srcs=[uid, str(number)])[:58]
        for k, ds in enumerate(slices, start=1):
            _rename(ds, uid, series, number, f"{series}.{k}")
            if number:
                ds.PixelData = np.ascontiguousarray(ds.pixel_array[:, ::-1]).tobytes()
            files.append(place / f"{series}.{k}.dcm")
            ds.save_as(files[-1])
    return Sent(uid, tuple(files), folder)


def _rename(ds: Dataset, study_uid: str, series_uid: str, number: int, sop_uid: str) -> None:
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = sop_uid
    ds.StudyDescription, ds.SeriesNumber = DESCRIPTION, number + 1
    ds.PatientID = f"P{study_uid[-6:]}"


@dataclass(frozen=True)
class Story:
    """What happened: two studies sent, both done."""

    agent: AgentProcess
    read: Sent
    alone: Sent
    findings: Findings


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Import the checkpoint by the command, start the agent, send a study of one series, then two.

    Only Prima's own priority head may raise a level here.
    """
    if not CHECKPOINT.is_file():
        pytest.skip("needs the whole golden set (WORKLIST_AGENT_GOLDEN)")
    folder = tmp_path_factory.mktemp("prima")
    pack = folder / "pack"
    files = {
        "--tokenizer": P2 / "vqvae_model_step16799.pth",
        "--tokenizer-config": P2 / "config.json",
        "--diagnosis-heads": P4 / "diagnosis_heads.json",
        "--referral-heads": P4 / "referral_heads.json",
        "--out": pack,
    }
    named = [str(word) for pair in files.items() for word in pair]
    command = ["packs", "import", "prima", str(CHECKPOINT), "--name", "prima", *named]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    alone, read = study(folder / "alone", 1), study(folder / "read", 2)
    quiet = {"urgent": "LOW", "routine": "LOW", "unread_failure": "LOW", "model_levels": LEVELS}
    with agent_process.running(
        folder / "agent", pack, priority=quiet, inference={"lime_samples": 80}
    ) as agent:
        agent.send_all(alone.files)
        agent.wait_until([alone.uid])
        agent.send_all(read.files)
        agent.wait_until([read.uid])
        with agent.reading() as session:
            row = session.query(Analysis).join(Study).filter_by(study_uid=read.uid).one()
            findings = Findings.from_json(row.findings)
        yield Story(agent, read, alone, findings)


def test_scores_are_those_of_the_published_pipeline(story: Story, tmp_path: Path) -> None:
    """Diagnoses, referrals and priority equal `prima run` on the same files, at its tolerance."""
    settings: dict[str, Any] = {
        "study_dir": story.read.directory,
        "output_dir": tmp_path,
        "study_description": DESCRIPTION,
        "tokenizer_model_config": P2 / "config.json",
        "prima_model_config": P4 / "prima_config.json",
        "device": "cpu",
    }
    outcome = pipeline.run(read_config(_write(settings, tmp_path)))
    said = outcome.predictions
    ours = {f.label: f.score for f in story.findings.findings}
    theirs = {k: v[0] for part in ("diagnosis", "referral") for k, v in said[part].items()}
    assert ours == pytest.approx(theirs, abs=2e-3)
    priority = story.findings.model_priority
    assert priority is not None
    levels = dict(zip(priority.levels, priority.scores, strict=True))
    assert levels == pytest.approx({k: v[0] for k, v in said["priority"].items()}, abs=2e-3)


def _write(settings: dict[str, Any], folder: Path) -> Path:
    file = folder / "pipeline.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    return file


def test_the_worklist_follows_primas_priority(story: Story) -> None:
    """The study that Prima calls urgent is read before the one that came first and was not read."""
    entries = story.agent.get_json("/api/worklist")["studies"]
    assert [e["study"]["study_uid"] for e in entries] == [story.read.uid, story.alone.uid]
    assert [e["level"] for e in entries] == ["HIGH", "LOW"]
    assert "own priority" in entries[0]["analysis"]["reason"]


def test_the_report_lists_what_passes_and_where(story: Story) -> None:
    """SR: every label with presence, and the explanation's method; SEG: of a present finding."""
    with story.agent.reading() as session:
        made = session.query(Result).join(Study).filter_by(study_uid=story.read.uid).all()
        paths = {r.kind: story.agent.data_dir / "results" / r.path for r in made}
    text = "\n".join(_words(pydicom.dcmread(paths["sr"])))
    present = [f for f in story.findings.findings if f.present]
    assert present
    assert all(f.display in text for f in present)
    located = [f for f in present if f.grounding is not None]
    assert located
    assert all(f.grounding.method == "lime" for f in located if f.grounding)
    assert "LIME: places whose presence" in text
    label = pydicom.dcmread(paths["seg"]).SegmentSequence[0].SegmentLabel
    assert label.endswith("(AI LIME evidence)")


def _words(item: Dataset) -> Iterator[str]:
    """Meanings of codes and texts of a report, in order."""
    for name in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
        yield from (str(code.CodeMeaning) for code in item.get(name, ()))
    yield str(item.get("TextValue", ""))
    for child in item.get("ContentSequence", ()):
        yield from _words(child)


def test_the_page_shows_chart_referral_priority_and_overlay(story: Story) -> None:
    """The overlay is colored where the explanation lies; the timeline says what was located."""
    key = next(
        e["study"]["key"]
        for e in story.agent.get_json("/api/worklist")["studies"]
        if e["study"]["study_uid"] == story.read.uid
    )
    page = story.agent.get(f"/studies/{key}").decode()
    assert "Diagnoses by score" in page
    assert "Priority of the model" in page
    assert "findings located" in page
    label = next(f.label for f in story.findings.findings if f.grounding is not None)
    picture = story.agent.get(f"/studies/{key}/findings/{label}.png")
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=int)
    assert (np.ptp(pixels, axis=2) > 60).sum() > 100
