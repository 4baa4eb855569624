"""Parts of a real vLLM server are killed in mid-draft: nothing hangs, nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from factories import language_models

from agent.vllm.environment import Environment
from inference.report.errors import DraftError
from inference.report.vllm import payload
from inference.report.vllm.client import Patience
from inference.report.vllm.drafter import COMPLETIONS
from inference.report.vllm.errors import ServerFault

from .conftest import KEY, NAME, WIDTH, Running

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]
PARTS = {"api server": None, "engine": "VLLM::EngineCor", "worker": "VLLM::Worker"}


class _Drafting(threading.Thread):
    """A long generation under way; `error` is how it ended."""

    def __init__(self, server: Running, *, stream: bool) -> None:
        super().__init__()
        self._client = server.client(Patience(60.0, max_attempts=1, stream=stream))
        self.error: DraftError | None = None
        self.asked = threading.Event()

    def run(self) -> None:
        embeds = np.full((8, WIDTH), 0.1, np.float32)
        decoding = payload.Decoding(4000, extra={"ignore_eos": True})
        body = payload.completion(NAME, payload.encode(embeds), decoding)

        def make(_: bool) -> dict[str, object]:
            self.asked.set()  # the server was inspected; what runs now is the draft
            return body

        try:
            self._client.generate(COMPLETIONS, make, rank=0, prompt_tokens=8)
        except DraftError as error:
            self.error = error
        finally:
            self._client.close()


def _running_requests(server: Running) -> float:
    with server.http() as client:
        text = client.get(f"{server.url}/metrics").text
    return sum(
        float(n) for n in re.findall(r"^vllm:num_requests_running\S* (\S+)", text, re.MULTILINE)
    )


def _named(members: list[int], name: str) -> int:
    for pid in members:
        if name in Path(f"/proc/{pid}/comm").read_text():
            return pid
    raise AssertionError(f"no {name} among {members}")


@pytest.mark.parametrize("stream", [False, True], ids=["one-piece", "stream"])
@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_is_a_passing_fault(server: Running, part: str, stream: bool) -> None:
    """The client says transient, no process is left behind, and the server serves again."""
    if stream and part == "worker":
        pytest.skip("the engine's end looks the same in a stream")
    server.wait(server.supervisor.ready.is_set, "serving")
    group = server.supervisor.group
    assert group is not None
    drafting = _Drafting(server, stream=stream)
    drafting.start()
    assert drafting.asked.wait(60)
    server.wait(lambda: _running_requests(server) > 0, "the draft under way", 30)
    name = PARTS[part]
    os.kill(_named(group.members(), name) if name else group.pid, signal.SIGKILL)
    drafting.join(60)

    assert isinstance(drafting.error, ServerFault)
    assert not drafting.error.permanent
    server.wait(lambda: group.members() == [], "nothing left of the killed server", 60)
    server.wait(lambda: server.supervisor.group is not group, "a new server", 60)
    server.wait(server.supervisor.ready.is_set, "serving again")
    with server.http() as client:
        assert client.get(f"{server.url}/v1/models").status_code == 200


def test_the_command_leaves_nothing_behind(
    environment: Environment, model: Path, tmp_path: Path
) -> None:
    """`vllm serve` ends with SIGTERM while it starts, with status 0 and without a child."""
    config = language_models.configured(tmp_path, model, "http://127.0.0.1:1", NAME, KEY)
    arguments = ["vllm", "serve", "--dir", str(environment.folder), "-c", str(config)]
    with subprocess.Popen([sys.executable, "-m", "agent", *arguments]) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 60
        while not (found := children.read_text().split()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)

    assert status == 0
    assert found
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)
