"""A DICOMweb server that answers with HTTP errors, through the whole outbox."""

from __future__ import annotations

from typing import Any

import pytest
from factories import http

from agent.settings import Destination
from db.states import DeliveryState, StudyState

Record = Any  # tests/integration/delivery/conftest.py


@pytest.mark.parametrize(
    ("status", "state", "study_state"),
    [
        (503, DeliveryState.PENDING, StudyState.DELIVERING),
        (429, DeliveryState.PENDING, StudyState.DELIVERING),
        (400, DeliveryState.DEAD, StudyState.FAILED),
        (403, DeliveryState.DEAD, StudyState.FAILED),
    ],
)
@pytest.mark.parametrize("failing", ["GET", "POST"])
def test_an_http_error_is_waited_out_or_raises_the_alarm(
    sqlite: Record, status: int, state: str, study_state: str, failing: str
) -> None:
    """Whether the identity query or the store itself fails; each is asked once an attempt."""

    def answer(request: http.Request) -> http.Answer:
        return http.Answer(status if request.method == failing else 204)

    study = sqlite.enqueue(("sr",))
    with http.serving(answer) as server:
        sqlite.deliver(Destination(name="pacs", kind="dicomweb", url=server.url, shadow=False))
    assert [request.method for request in server.requests].count(failing) == 1
    assert sqlite.states() == [state]
    assert f"HTTP {status}" in sqlite.rows()[0].last_error
    assert sqlite.study(study).state == study_state
