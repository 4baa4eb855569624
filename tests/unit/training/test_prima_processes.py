"""Prima's training on two processes gives what one process gives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from factories import prima_training as small

from training.prima.clip.recipe import train as train_clip


@pytest.mark.slow
def test_two_processes_compare_with_all_studies_of_both(tmp_path: Path, repository: Path) -> None:
    """The losses of three steps are those of one process with twice the batch."""
    from factories.inside import two_studies

    small.latents(tmp_path / "latents")
    run_both("compare", tmp_path, repository)
    alone = train_clip(
        tmp_path / "latents", two_studies.rows(tmp_path), two_studies.RUN, tmp_path / "alone"
    )
    for rank in (0, 1):
        spread = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert spread == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_two_processes_hold_one_codebook(tmp_path: Path, repository: Path) -> None:
    """That of one process which saw the latents of both."""
    from factories.inside import two_studies

    run_both("join", tmp_path, repository)
    book, latents = two_studies.codebook()
    book(latents)
    for rank in (0, 1):
        spread = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in book.state_dict().items():
            torch.testing.assert_close(spread[name], value)


def run_both(what: str, out: Path, repository: Path) -> None:
    """Two processes with what torchrun would tell them, on the loopback interface."""
    script = repository / "tests" / "factories" / "inside" / "two_studies.py"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "PYTHONPATH": f"{repository}:{repository / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    running = [
        subprocess.Popen(
            [sys.executable, str(script), what, str(out)], env={**shared, "RANK": str(rank)}
        )
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
