"""Hugging Face ids: the real library against a stand-in of the hub on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from factories.neurovfm import ENCODER

from inference.checkpoints import sha256_of
from inference.errors import WeightsError
from inference.neurovfm import load_encoder
from inference.neurovfm.model import VisionTransformer

constants = pytest.importorskip("huggingface_hub.constants")

NAME = "owner/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "extra.txt"


class Hub:
    """One repository with one commit, as the hub's API serves it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"{self.command} {self.path}")
                path = self.path.partition("?")[0]
                if path.startswith(f"/api/models/{NAME}/revision/"):
                    self._api(path.rpartition("/")[2], files)
                elif path.startswith(f"/api/models/{NAME}/tree/"):
                    self._json([_entry(name, data) for name, data in files.items()])
                elif path.startswith(f"/{NAME}/resolve/{COMMIT}/"):
                    self._file(files[path.rpartition("/")[2]])
                else:
                    self.send_error(404)

            do_HEAD = do_GET  # noqa: N815 - the base class' name

            def _api(self, revision: str, files: dict[str, bytes]) -> None:
                if revision not in (COMMIT, "main", "v1"):
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RevisionNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                siblings = [{"rfilename": name} for name in files]
                self._json({"id": NAME, "sha": COMMIT, "siblings": siblings})

            def _json(self, value: Any) -> None:
                self._file(json.dumps(value).encode(), "application/json")

            def _file(self, data: bytes, kind: str = "application/octet-stream") -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nobody there any more."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@pytest.fixture
def hub(
    official: Callable[..., Path],
    encoder: VisionTransformer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Hub]:
    """A hub with an official encoder and a file that nobody needs; an empty cache."""
    folder = official("source", ENCODER, encoder.state_dict())
    (folder / OTHER).write_text("not fetched")
    made = Hub(folder)
    monkeypatch.setattr(constants, "ENDPOINT", made.url)
    template = made.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield made
    made.stop()


def test_an_id_is_fetched_pinned_recorded_and_found_again_offline(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the files needed come; commit and checksum are on record; then no network is asked."""
    weights_file = tmp_path / "source" / "pytorch_model.bin"
    pipeline, _ = load_encoder(NAME, device="cpu", revision="v1")
    assert pipeline.provenance is not None
    assert (pipeline.provenance.source, pipeline.provenance.revision) == (NAME, COMMIT)
    assert pipeline.provenance.sha256 == sha256_of(weights_file)
    assert not any(OTHER in line for line in hub.asked)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    for revision in ("v1", COMMIT):
        again, _ = load_encoder(NAME, device="cpu", revision=revision)
        assert again.provenance == pipeline.provenance
    with pytest.raises(WeightsError, match="owner/other: not fetched"):
        load_encoder("owner/other", device="cpu")
    assert hub.asked == []


def test_a_revision_that_is_not_there_is_an_error_of_ours(hub: Hub) -> None:
    """A pinned revision is never replaced by another one."""
    with pytest.raises(WeightsError, match="check id, revision"):
        load_encoder(NAME, device="cpu", revision="v2")
