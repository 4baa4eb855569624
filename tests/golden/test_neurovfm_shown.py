"""What the issue wants shown: an official checkpoint, imported, gives the golden probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import sqlalchemy as sa
import torch
from factories import agent_process, golden, peers
from typer.testing import CliRunner

from agent import app, cli, database
from agent import config as configs
from db import engine as engines
from db.models import Analysis, Result, Study
from dicom_nodes.node import Node
from dicom_nodes.scu import store
from inference.findings import Findings
from inference.neurovfm import load_diagnostic_head, load_encoder

INPUT = golden.case("n1_preprocess") / "input" / "dicom_ct_series"
TOKENS = golden.case("n1_preprocess") / "study_dicom_series_dirs_in_list_ct.npz"
ENCODER = golden.case("n2_encoder") / "checkpoint"
HEAD = golden.case("n3_heads") / "cta_gated"
PERCENT = "%"


@pytest.fixture(scope="module")
def official() -> list[float]:
    """The probabilities that the golden tokens give through the official files."""
    facts = golden.meta("n1_preprocess")["studies"]["dicom_series_dirs_in_list_ct"]
    batch = {key: torch.from_numpy(values) for key, values in golden.arrays(TOKENS).items()}
    batch |= {"mode": facts["mode"], "path": facts["path"]}
    embeddings = load_encoder(ENCODER, device="cpu")[0].embed(batch, use_amp=False)
    rows = load_diagnostic_head(HEAD, device="cpu").predict(embeddings, batch, use_amp=False)
    return [probability for _, probability, _ in rows]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`packs import` of the golden checkpoint."""
    folder = tmp_path_factory.mktemp("packs") / "golden"
    options = {"--encoder": ENCODER, "--ct": HEAD, "--out": folder, "--name": "golden"}
    arguments = [str(part) for option in options.items() for part in option]
    result = CliRunner().invoke(cli.app, ["packs", "import", "neurovfm", *arguments])
    assert result.exit_code == 0, result.output
    assert "CC-BY-NC-SA-4.0" in result.output
    return folder


def test_analyze_prints_the_golden_probabilities(
    pack: Path, official: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of DICOM files and an imported pack: the numbers of the reference."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKLIST_AGENT_CONFIG", str(_config_file(tmp_path, pack)))
    arguments = ["analyze", str(INPUT), "--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(cli.app, arguments)

    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    np.testing.assert_allclose([f["probability"] for f in report["findings"]], official, rtol=1e-6)
    assert "Research use only" in report["notice"]


@pytest.fixture
def agent(pack: Path, tmp_path: Path) -> Iterator[app.Agent]:
    """The agent with that pack, running in this process."""
    settings = agent_process.configuration(tmp_path, pack, [])
    settings |= {"inference": {"executor": "inline", "device": "cpu"}, "web": {"enabled": False}}
    config = configs.from_mapping(settings, source="test")
    config.storage.data_dir.mkdir(parents=True, exist_ok=True)
    engine = engines.create_engine(config.database_url)
    database.upgrade(engine)
    engine.dispose()
    made = app.build(config)
    made.start()
    yield made
    made.stop()


def test_the_agent_writes_the_golden_probabilities_into_the_report(
    agent: app.Agent, official: list[float]
) -> None:
    """From C-STORE to the structured report, which holds them in percent with one decimal."""
    base = agent._base
    node = Node(base.config.dicom.ae_title, "127.0.0.1", agent.dicom_port, calling_ae="SCANNER")
    outcomes = list(store.store_each(node, sorted(INPUT.iterdir())))
    assert all(outcome.ok for outcome in outcomes)

    def state() -> str:
        with base.sessions() as session:
            return str(session.execute(sa.select(Study.state)).scalar_one_or_none())

    peers.wait_for("the study to be done", lambda: state() == "done", 60)
    with base.sessions() as session:
        stored = session.execute(sa.select(Analysis.findings)).scalar_one()
        path = session.execute(sa.select(Result.path).filter_by(kind="sr")).scalar_one()
    said = [f.probability for f in Findings.from_json(stored).findings]
    np.testing.assert_allclose(said, official, rtol=1e-6)
    report = pydicom.dcmread(base.config.storage.data_dir / "results" / path)
    percent = [round(100 * p, 1) for p in official]
    # every label in order, then those above threshold again, with their places
    assert _percentages(report)[: len(percent)] == percent
    assert _percentages(report)[len(percent) :] == [p for p in percent if p > 50]


def _config_file(folder: Path, pack: Path) -> Path:
    file = folder / "agent.toml"
    file.write_text(agent_process.to_toml(agent_process.configuration(folder, pack, [])))
    return file


def _percentages(item: pydicom.Dataset) -> list[float]:
    """Every number in percent of a content tree, in order."""
    found = [
        float(value.NumericValue)
        for value in item.get("MeasuredValueSequence", [])
        if value.MeasurementUnitsCodeSequence[0].CodeValue == PERCENT
    ]
    for child in item.get("ContentSequence", []):
        found += _percentages(child)
    return found
