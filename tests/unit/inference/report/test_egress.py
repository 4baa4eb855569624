"""Drafting and triage open no socket but to the endpoint that was named: watched, not assumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from factories import http

PROGRAM = """
import sys
import httpx
from inference.report import house, triage
from inference.report.draft import ClinicalContext
from inference.report.errors import DraftError
from inference.report.house import House
from inference.report.tokens import VisualTokens
from inference.report.vllm.client import Patience, VllmClient
from inference.report.vllm.drafter import Recipe, VllmDrafter
from inference.report.vllm.pool import Pool, Replica
from inference.report.vllm.safety import EmbeddingLimits
from inference.report.vllm.schema import Bounds
import numpy as np

inside = sys.argv[1]
for url in (inside, "http://203.0.113.5:8000", "https://[2001:db8::5]"):
    try:
        settings = triage.ReasonerSettings(url, "m", House(), max_attempts=1)
        triage.interpret("- hematoma", triage.HttpReasoner(settings))
    except DraftError as error:
        print(type(error).__name__)
    client = house.client(House(), timeout=httpx.Timeout(5))
    asked = VllmClient(client, Pool([Replica(url)], 1), "m", 8, Patience(5.0, 1))
    recipe = Recipe("m", "m 1", EmbeddingLimits(8, 99), Bounds())
    tokens = VisualTokens(("1.2",), np.ones((1, 4, 8), np.float32))
    try:
        VllmDrafter(asked, recipe).draft(tokens, ClinicalContext("CT"), 0)
    except DraftError as error:
        print(type(error).__name__)
"""


def test_no_socket_is_opened_outside_the_allow_list(tmp_path: Path, repository: Path) -> None:
    """Proxies of the environment included; addresses outside are refused before a connection."""
    log = tmp_path / "connections"
    proxy = "http://203.0.113.9:3128"
    inside = repository / "tests" / "factories" / "inside"
    with http.serving(lambda _: http.Answer(503)) as server:
        url = server.url.removesuffix("/dicom-web")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, url],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(inside), str(repository))),
                "CONNECT_LOG": str(log),
                "HTTP_PROXY": proxy,
                "HTTPS_PROXY": proxy,
                "ALL_PROXY": proxy,
            },
            capture_output=True,
            text=True,
            check=True,
        )
    port = url.rpartition(":")[2]
    reached = {line for line in log.read_text().splitlines() if line.startswith("connect")}

    assert reached == {f"connect 127.0.0.1 {port}"}
    told = [word for word in done.stdout.split() if word in {"ServerFault", "LeavesTheHouse"}]

    assert told == ["ServerFault"] * 2 + ["LeavesTheHouse"] * 4
