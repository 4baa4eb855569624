"""One association as requestor: time-outs on everything, released or aborted at the end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_nodes.errors import NodeConfigError, NodeError, PeerRefused, PeerUnavailable
from dicom_nodes.node import Node

#: A-ASSOCIATE-RQ numbers contexts with odd 8-bit integers (PS3.8 9.3.2.2).
MAX_CONTEXTS = 128

# Library-wide switches of pynetdicom, set once at import: files are sent as the bytes they are
# (decoded and encoded again otherwise), and identifiers, which name patients, are not logged.
_config.STORE_SEND_CHUNKED_DATASET = True
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.LOG_HANDLER_LEVEL = "none"

#: How long the library's threads get to finish before their socket is closed.
_GOODBYE_S = 5.0

#: A-ASSOCIATE-RJ (source, reason) in words (PS3.8 table 9-21).
_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context not supported",
    (1, 3): "our AE title is not known there",
    (1, 7): "its AE title is another one",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporarily congested",
    (3, 2): "too many associations",
}


@contextmanager
def associate(
    node: Node,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    evt_handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
) -> Iterator[Association]:
    """Open an association for the length of a block.

    Args:
        node: whom to call.
        contexts: what to propose.
        roles: role selection, for services in which we are the provider.
        evt_handlers: pynetdicom event handlers, for requests the peer makes on the association.

    Raises:
        PeerUnavailable: no connection, no answer, or the association was rejected. A rejection is
            transient here, whatever the peer says: AE tables are edited while we wait.
        PeerRefused: associated, but not one presentation context was accepted.
    """
    if not contexts or len(contexts) > MAX_CONTEXTS:
        raise NodeConfigError(
            f"{where(node)}: {len(contexts)} presentation contexts; 1 to {MAX_CONTEXTS} are allowed"
        )
    sockets: list[socket.socket] = []
    try:
        association = _request(node, contexts, sockets, roles, evt_handlers)
        if not association.is_established:
            raise _why_not(association, node)
        try:
            yield association
        except BaseException:
            _end(association, abort=True)
            raise
        _end(association, abort=False)
    finally:
        for leaked in sockets:  # pynetdicom leaves a socket open when the peer was gone first
            leaked.close()


def where(node: Node) -> str:
    """How messages name a peer."""
    return f"{node.ae_title} at {node.host}:{node.port}"


def broken(node: Node) -> PeerUnavailable:
    """The error for an association that ended, or a response that did not come, in an exchange."""
    return PeerUnavailable(
        f"{where(node)}: no valid response within {node.timeout_s:g} s, or the connection broke; "
        f"check its log, that it allows {node.calling_ae} to do this, and the network between"
    )


def _request(
    node: Node,
    contexts: Sequence[PresentationContext],
    sockets: list[socket.socket],
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation],
    evt_handlers: Sequence[tuple[Any, Callable[..., Any]]],
) -> Association:
    entity = AE(ae_title=node.calling_ae)
    entity.maximum_pdu_size = node.max_pdu
    entity.connection_timeout = node.timeout_s
    entity.acse_timeout = node.timeout_s
    entity.dimse_timeout = node.timeout_s
    entity.network_timeout = node.timeout_s
    try:
        return entity.associate(
            node.host,
            node.port,
            contexts=list(contexts),
            ae_title=node.ae_title,
            max_pdu=node.max_pdu,
            tls_args=(node.tls, node.host) if node.tls else None,
            ext_neg=list(roles),
            evt_handlers=[
                *evt_handlers,
                (evt.EVT_ACSE_SENT, _keep_socket, [sockets]),
                (evt.EVT_CONN_OPEN, _tune, [sockets, node.timeout_s]),
            ],
        )
    except OSError as error:  # the host name does not resolve
        raise PeerUnavailable(
            f"{where(node)}: cannot be reached: {error}; check host and port"
        ) from error


def _keep_socket(event: Any, sockets: list[socket.socket]) -> None:
    if event.assoc.dul.socket is not None and event.assoc.dul.socket.socket is not None:
        sockets.append(event.assoc.dul.socket.socket)


def _tune(event: Any, sockets: list[socket.socket], timeout_s: float) -> None:
    raw = event.assoc.dul.socket.socket
    sockets.append(raw)  # over TLS another object than before
    # Nagle's algorithm and delayed acknowledgements together cost 40 ms a message
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # pynetdicom leaves the socket without a time-out: a peer that stalls would hold us for ever
    raw.settimeout(timeout_s)


def _why_not(association: Association, node: Node) -> NodeError:
    answer = association.acceptor.primitive
    if answer is not None and answer.result in {1, 2}:
        source, diagnostic = int(answer.result_source or 0), int(answer.diagnostic or 0)
        reason = _REJECTIONS.get((source, diagnostic), f"source {source}, reason {diagnostic}")
        return PeerUnavailable(
            f"{where(node)}: association rejected: {reason}; "
            f"check AE titles (we call as {node.calling_ae}) and the peer's list of nodes"
        )
    if answer is not None and answer.result == 0:
        refused = {str(c.abstract_syntax) for c in association.rejected_contexts}
        return PeerRefused(
            f"{where(node)}: accepts none of the SOP classes {', '.join(sorted(refused))} "
            "in the transfer syntaxes offered; allow them there or do not send them"
        )
    certificates = ", that each side trusts the other's certificate" if node.tls else ""
    return PeerUnavailable(
        f"{where(node)}: no connection or no answer within {node.timeout_s:g} s; "
        f"check host, port, firewall{certificates}, and that the peer runs"
    )


def _end(association: Association, *, abort: bool) -> None:
    with suppress(Exception):  # the exchange is over; how the goodbye goes changes nothing
        if association.is_established:
            (association.abort if abort else association.release)()
        association.join(_GOODBYE_S)
