"""`worklist-agent serve`: run the agent until it is told to stop."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import typer

from agent.commands import common

if TYPE_CHECKING:
    from types import FrameType


def serve(config: common.ConfigOption = None) -> None:
    """Run the agent: DICOM node, assembly, inference, delivery, worklist page.

    Stops cleanly on SIGTERM or Ctrl-C: no new associations, running ones drain, the study at hand
    is finished or given back. A second signal ends it at once; nothing acknowledged is lost.
    """
    from agent import app
    from agent.observability import logs

    loaded = common.load_config(config)
    logs.configure(loaded.log)
    stop = stop_on_signals()
    with common.refusals():
        agent = app.build(loaded)
        agent.start()
    typer.echo(agent.describe(), err=True)
    stop.wait()
    agent.stop()


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set; the second signal ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
