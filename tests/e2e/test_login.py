"""Logging in, working and logging out with a real browser, under the page's own security policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import access, dicom, peers, rows
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from sqlalchemy import select

from agent.routing.book import RuleBook
from agent.settings import PackSettings, RoutingRule, RoutingSettings
from agent.web.server import WebServer
from db.models import AuditEvent, Study

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
BOOK = RuleBook(
    routing=RoutingSettings(
        rules=(RoutingRule(name="head CT", when={"modality": "CT"}, pack="demo"),)  # type: ignore[arg-type]
    ),
    packs={"demo": PackSettings(path=Path("demo"))},
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A Chromium with a profile of its own."""
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    options.binary_location = peers.require(peers.find("chromium"), "chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = peers.require(peers.find("chromedriver"), "chromedriver")
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[access.House, str]]:
    """A served application where people log in, with one study; and its address."""
    made = access.house(rows.sessions(tmp_path), rules=BOOK)
    with made.sessions.begin() as session:
        rows.series(session, rows.study(session))
    server = WebServer(made.app, "127.0.0.1", 0)
    server.start()
    yield made, f"http://127.0.0.1:{server.port}"
    server.stop()
    made.sessions.kw["bind"].dispose()


def test_a_radiologist_logs_in_works_and_logs_out(
    house: tuple[access.House, str], browser: webdriver.Chrome, tmp_path: Path
):
    """The form, a change with its CSRF token, the rule tester with a file, and out again."""
    made, url = house
    wait = WebDriverWait(browser, 20)
    with made.sessions() as session:
        study = session.scalars(select(Study)).one()

    browser.get(f"{url}/studies/{study.key}")
    browser.find_element(By.ID, "name").send_keys("rad")
    browser.find_element(By.ID, "password").send_keys(access.PASSWORD)
    browser.save_screenshot(str(tmp_path / "login.png"))
    browser.find_element(By.CSS_SELECTOR, "main button").click()
    wait.until(lambda b: b.current_url.endswith(study.key))

    browser.find_element(By.ID, "act-read").click()
    wait.until(lambda _: _reading_state(made, study.id) == "read")

    (image,) = dicom.ct_series(n=1, rows=8, cols=8)
    file = dicom.save(image, tmp_path / "image.dcm")
    browser.get(f"{url}/rules")
    browser.find_element(By.ID, "file").send_keys(str(file))
    wait.until(lambda b: "Read by demo" in b.find_element(By.ID, "trial").text)
    browser.save_screenshot(str(tmp_path / "rules.png"))

    browser.find_element(By.CSS_SELECTOR, "form.who button").click()
    wait.until(lambda b: b.current_url.endswith("/login"))
    browser.get(url)
    assert "/login" in browser.current_url
    refused = [line["message"] for line in browser.get_log("browser") if "Security" in str(line)]
    assert refused == []
    with made.sessions() as session:
        kinds = set(session.scalars(select(AuditEvent.kind)))
    assert {"login", "study_viewed", "study_changed", "searched", "logout"} <= kinds


def _reading_state(made: access.House, study_id: int) -> str:
    with made.sessions() as session:
        return session.get_one(Study, study_id).reading_state
