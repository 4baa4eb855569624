"""The whole path with peers we did not write: DCMTK sends, Orthanc receives, a browser looks."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from factories import agent_process, hospital, model_packs, orthanc
from factories.agent_process import AgentProcess
from factories.hospital import Sample
from factories.orthanc import Orthanc
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(300)]

KINDS = {"SR", "SEG", "OT"}
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--window-size=1440,900",
)


@dataclass(frozen=True)
class Site:
    """An agent with two archives: one spoken to over DIMSE, one over DICOMweb."""

    agent: AgentProcess
    dimse: Orthanc
    web: Orthanc
    ct: Sample
    mr: Sample


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Both studies sent by storescu to archive and agent, and done."""
    folder = tmp_path_factory.mktemp("site")
    pack = model_packs.bright_pack(folder / "pack")
    ct = hospital.sample(folder, "CT1", RequestedProcedurePriority="ROUTINE")
    mr = hospital.sample(
        folder, "MR1", modality="MR", plain=True, RequestedProcedurePriority="MEDIUM"
    )
    with (
        orthanc.running(folder / "dimse") as dimse,
        orthanc.running(folder / "web", ae_title="WEBPACS") as web,
    ):
        destinations = [
            agent_process.dicom("dimse", dimse.dicom_port, dimse.ae_title),
            agent_process.dicomweb("web", web.web_url),
        ]
        with agent_process.running(folder / "agent", pack, destinations) as agent:
            for one in (mr, ct):
                for port in (dimse.dicom_port, web.dicom_port, agent.node.port):
                    _storescu(port, one)
            agent.wait_until([ct.study_uid, mr.study_uid], timeout_s=120)
            yield Site(agent, dimse, web, ct, mr)


@pytest.mark.parametrize("archive", ["dimse", "web"])
@pytest.mark.parametrize("study", ["ct", "mr"])
def test_results_come_back_under_the_same_study(site: Site, archive: str, study: str) -> None:
    """SR, SEG and pictures lie beside the images, under patient and study as sent."""
    pacs: Orthanc = getattr(site, archive)
    one: Sample = getattr(site, study)
    source = pydicom.dcmread(one.files[0])
    series = pacs.get(f"/dicom-web/studies/{one.study_uid}/series?includefield=00080060")
    modalities = sorted(entry["00080060"]["Value"][0] for entry in series)

    positive = study == "ct"
    expected = ["CT", "OT", "OT", "SEG", "SR"] if positive else ["MR", "OT", "SR"]
    assert modalities == expected
    assert len(pacs.get("/studies")) == 2
    for uid in _results(pacs, one):
        ds = pydicom.dcmread(io.BytesIO(pacs.file(uid)), stop_before_pixels=True)
        assert ds.StudyInstanceUID == one.study_uid
        assert (ds.PatientID, ds.AccessionNumber) == (source.PatientID, source.AccessionNumber)


def test_both_archives_hold_the_same_objects_once(site: Site) -> None:
    """DIMSE and DICOMweb carry the same bytes' identity; nothing is there twice."""
    for one in (site.ct, site.mr):
        held = site.dimse.sop_uids(StudyInstanceUID=one.study_uid)
        assert held == site.web.sop_uids(StudyInstanceUID=one.study_uid)
        assert len(held) == len(set(held))
        assert len(_results(site.dimse, one)) == (4 if one is site.ct else 2)


def test_dsrdump_reads_the_report(site: Site, tmp_path: Path) -> None:
    """DCMTK prints finding, certainty, priority and the research notice of the report."""
    text = _dsrdump(site.dimse, site.ct, tmp_path)

    assert '"Finding")=(1386000,SCT,"Intracranial hemorrhage")' in text
    assert '"Certainty of Finding")="100.0"' in text
    assert '"Suggested reading priority")=(STAT,' in text
    assert "research use only" in text


def test_findscu_answers_in_the_order_of_the_page(site: Site) -> None:
    """The urgent CT, sent last and ordered ROUTINE, is first for findscu as on the page."""
    listed = site.agent.get_json("/api/worklist")["studies"]
    page = [entry["study"]["study_uid"] for entry in listed]
    answers = _findscu(site.agent)

    assert page == [site.ct.study_uid, site.mr.study_uid]
    assert [a["StudyInstanceUID"] for a in answers] == page
    assert [a["RequestedProcedurePriority"] for a in answers] == ["STAT", "MEDIUM"]


@pytest.mark.browser
def test_browser_shows_the_worklist_in_reading_order(site: Site, tmp_path: Path) -> None:
    """Headless Chromium shows both studies, the urgent one first, with its finding and picture."""
    browser = _chromium(tmp_path)
    try:
        browser.get(site.agent.url)
        rows = WebDriverWait(browser, 20).until(
            lambda b: b.find_elements(By.CSS_SELECTOR, "table.worklist tbody tr")
        )
        WebDriverWait(browser, 20).until(_pictures_loaded)
        browser.save_screenshot(str(tmp_path / "worklist.png"))

        assert [row.get_attribute("data-level") for row in rows] == ["STAT", "MEDIUM"]
        assert "Bright tissue" in rows[0].text
        assert "Nothing above threshold" in rows[1].text
        assert "PATCT1" in rows[0].text
    finally:
        browser.quit()


def _storescu(port: int, one: Sample) -> None:
    command = ["storescu", "-aet", "SCANNER", "-aec", "ANY", "127.0.0.1", str(port)]
    subprocess.run([*command, *map(str, one.files)], check=True, timeout=60, capture_output=True)


def _results(pacs: Orthanc, one: Sample) -> list[str]:
    return [u for u in pacs.sop_uids(StudyInstanceUID=one.study_uid) if u not in one.sop_uids]


def _dsrdump(pacs: Orthanc, one: Sample, folder: Path) -> str:
    for uid in _results(pacs, one):
        path = folder / f"{uid}.dcm"
        path.write_bytes(pacs.file(uid))
        if pydicom.dcmread(path, specific_tags=["Modality"]).Modality == "SR":
            done = subprocess.run(
                ["dsrdump", "+Pl", str(path)], check=True, timeout=60, capture_output=True
            )
            return done.stdout.decode()
    pytest.fail("Orthanc holds no report")


def _findscu(agent: AgentProcess) -> list[dict[str, str]]:
    keys = ("StudyInstanceUID", "RequestedProcedurePriority")
    arguments = [part for key in keys for part in ("-k", key)]
    done = subprocess.run(
        ["findscu", "-W", "-v", "-aec", "WLAGENT", *arguments, "127.0.0.1", str(agent.node.port)],
        check=True,
        timeout=60,
        capture_output=True,
    )
    text = (done.stdout + done.stderr).decode()
    blocks = re.split(r"Find Response(?:: \d+|.*?Pending)", text)[1:]
    values = [dict(_values(block)) for block in blocks]
    return [v for v in values if "RequestedProcedurePriority" in v]


def _values(block: str) -> Iterator[tuple[str, str]]:
    line = r"\([0-9a-f]{4},[0-9a-f]{4}\) \w\w (.*?)\s*#\s*\d+,\s*\d+ (\w+)"
    for value, keyword in re.findall(line, block):
        yield keyword, value.strip("[]").strip(" \0")


def _pictures_loaded(browser: Any) -> bool:
    script = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    return bool(browser.execute_script(script))


def _chromium(folder: Path) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path="/usr/bin/chromedriver")
    return webdriver.Chrome(options=options, service=service)
