"""UPS-RS user agent (PS3.18 section 11): workitems at another manager."""

from __future__ import annotations

import json

import httpx
from pydicom.dataset import Dataset

from dicom_nodes.errors import PeerRefused
from dicom_nodes.ups import State
from dicom_nodes.web import http
from dicom_nodes.web.http import HttpPeer

_JSON = {"Accept": "application/dicom+json", "Content-Type": "application/dicom+json"}


def schedule(peer: HttpPeer, uid: str, task: Dataset, changes: Dataset) -> bool:
    """Create a workitem, or change the one that is there; False when it is performed already.

    Raises:
        NodeError: unavailable or refused.
    """
    with http.connect(peer, _JSON) as client:
        answer = client.post("workitems", params={"workitem": uid}, content=_body(task))
        if answer.status_code != 409:
            http.check(peer, answer)
            return True
        answer = client.post(f"workitems/{uid}", content=_body(changes))
        if answer.status_code in {400, 409}:
            if _state(peer, client, uid) is not State.SCHEDULED:
                return False
            raise PeerRefused(f"{peer.name}: HTTP {answer.status_code}: workitem not updated")
        http.check(peer, answer)
    return True


def cancel(peer: HttpPeer, uid: str, requester: str, reason: str) -> None:
    """Ask for a workitem's cancellation; one that is unknown or finished needs none.

    Raises:
        NodeError: unavailable or refused.
    """
    asked = Dataset()
    asked.ReasonForCancellation = reason
    with http.connect(peer, _JSON) as client:
        path = f"workitems/{uid}/cancelrequest"
        answer = client.post(path, params={"requester": requester}, content=_body(asked))
    if answer.status_code not in {404, 409, 410}:
        http.check(peer, answer)


def check(peer: HttpPeer) -> None:
    """Search for nothing in particular.

    Raises:
        NodeError: it does not answer such a search.
    """
    with http.connect(peer, _JSON) as client:
        http.check(peer, client.get("workitems", params={"limit": "1"}))


def _state(peer: HttpPeer, client: httpx.Client, uid: str) -> State | None:
    answer = client.get(f"workitems/{uid}")
    http.check(peer, answer)
    try:
        said = answer.json()
        item = said[0] if isinstance(said, list) else said
        return State(item["00741000"]["Value"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def _body(ds: Dataset) -> bytes:
    return json.dumps([ds.to_json_dict()]).encode()
