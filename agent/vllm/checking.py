"""What `worklist-agent vllm check` asks the servers, and how the supervisor asks for health."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from agent.config import Config
from agent.drafting import backends
from agent.vllm.command import Serving
from agent.vllm.errors import VllmError
from inference.report.vllm.inspection import nan_count

if TYPE_CHECKING:
    import httpx

    from inference.report.vllm.inspection import Facts

HEALTH_S = 5.0
NAN_S = 5.0


def check(config: Config) -> list[dict[str, Any]]:
    """One row for each endpoint: what it is, and the problem with it (empty = fit).

    Raises:
        AgentError, InferenceError: nothing is configured that could be checked.
    """
    import httpx

    from inference.report import house
    from inference.report.embeddings import EmbeddingRows

    settings = config.report
    if settings.backend != "vllm":
        raise VllmError(f'report.backend is "{settings.backend}"; nothing is asked of vLLM')
    folder = config.packs[settings.pack].path
    width = EmbeddingRows.find(folder / _language_model(config)).width
    timeout = httpx.Timeout(settings.timeout_s, connect=settings.connect_timeout_s)
    key = backends.read_key(settings.api_key_file)
    within = house.House(settings.allowed_networks)
    with house.client(within, api_key=key, timeout=timeout) as client:
        return [_row(client, url, config, width) for url in settings.endpoints]


def health(serving: Serving) -> Callable[[], bool]:
    """Whether the server answers that it is well."""
    return lambda: _page(serving, "/health") is not None


def nan_fault(
    serving: Serving, every_s: float = NAN_S, clock: Callable[[], float] = time.monotonic
) -> Callable[[], str]:
    """Whether the server met NaN since it started; it then spoils the drafts of other studies.

    Measured: after one request with NaN every later short one failed until the server was started
    anew. vLLM counts such requests and goes on.
    """
    asked = -every_s

    def fault() -> str:
        nonlocal asked
        if clock() - asked < every_s:
            return ""
        asked = clock()
        count = nan_count(_page(serving, "/metrics") or "")
        return f"the server met NaN in {count:g} requests" if count else ""

    return fault


def _page(serving: Serving, path: str) -> str | None:
    """A page of the server; None while it does not answer."""
    connection = HTTPConnection(_reached(serving.host), serving.port, timeout=HEALTH_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
    return text if response.status == HTTPStatus.OK else None


def _row(client: httpx.Client, url: str, config: Config, width: int) -> dict[str, Any]:
    from inference.report.errors import DraftError
    from inference.report.vllm import inspection

    settings = config.report
    model = backends.served_name(settings, settings.pack)
    try:
        facts = inspection.inspect(client, url, model, width)
    except DraftError as error:
        return {"endpoint": url, **_told(None), "problem": str(error)}
    problems = facts.refusals(model, settings.max_tokens * 2)
    if facts.corrupted:
        problems.append(f"{facts.corrupted:g} requests met NaN since it started")
    return {"endpoint": url, **_told(facts), "problem": "; ".join(problems)}


def _told(facts: Facts | None) -> dict[str, Any]:
    return {
        "version": facts.version if facts else "",
        "models": ", ".join(facts.models) if facts else "",
        "max_model_len": facts.max_model_len if facts else None,
        "prompt_embeds": bool(facts and not facts.embeddings),
        "guidance": bool(facts and facts.guidance),
        "priority": bool(facts and facts.by_priority),
        "nan_requests": facts.corrupted if facts else None,
    }


def _language_model(config: Config) -> str:
    from inference import packs

    section = packs.load_manifest(config.packs[config.report.pack].path).report
    if section is None:
        raise VllmError(f"report.pack: {config.report.pack} has no [report] section")
    return section.language_model


def _reached(host: str) -> str:
    """Where a server that listens everywhere is asked."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  not a binding
