"""A receiver process for the fault tests: the shipped server and intake on one directory.

python receiver.py DIRECTORY: prints the port, serves until it is killed.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from agent.intake import recovery
from agent.intake.handler import IntakeHandler, IntakeSettings
from agent.intake.spool import Spool
from db import engine as db_engine
from db import models
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings


def main(folder: Path) -> None:
    """Serve until killed."""
    engine = db_engine.create_engine(f"sqlite:///{folder / 'record.db'}")
    models.Study.metadata.create_all(engine)
    spool = Spool(folder / "spool")
    recovery.reconcile(spool, engine)
    handler = IntakeHandler(spool, engine, IntakeSettings(low_water_bytes=0))
    server = StorageServer(ServerSettings(port=0), handler)
    server.start()
    sys.stdout.write(f"port {server.port}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
