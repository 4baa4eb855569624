"""Arrival, wired: services on our port that tell of it, and sweeps that prove it."""

from __future__ import annotations

import datetime as dt
import functools

from agent.delivery import registry
from agent.delivery.channels.dicom import tls_context
from agent.delivery.commitments import Commitments
from agent.delivery.proof import Prover
from agent.foundation import Foundation
from agent.schedule import Sweep
from agent.services import commitment as requests
from agent.services.availability import Notices
from agent.services.commitment import CommitmentRequests
from agent.services.performed_steps import PerformedSteps
from agent.settings import MESSAGE_DESTINATIONS, CommitmentPeer, Destination
from db.queries import arrivals
from dicom_nodes.node import Node
from dicom_nodes.scp import commitment
from dicom_nodes.scp.dispatch import Service


class Arrival:
    """What an agent needs to know that studies came whole and that results arrived."""

    def __init__(self, base: Foundation) -> None:
        config = base.config
        self._base = base
        routes = registry.routes(config.destinations, config.dicom.ae_title)
        self._commitments = Commitments(base.sessions, routes, config.delivery, base.clock)
        self._prover = Prover(
            base.sessions,
            routes,
            config.delivery,
            base.results,
            self._commitments,
            clock=base.clock,
            observe=base.metrics.proof_told,
        )
        self._requests = CommitmentRequests(
            base.sessions,
            base.spool.root,
            _nodes(base),
            requests.lifetime(config.delivery, config.commitment.give_up_hours),
            base.clock,
        )

    def services(self) -> list[Service]:
        """Performed steps, availability notices and storage commitment."""
        base = self._base
        return [
            PerformedSteps(base.sessions, base.clock).service(),
            Notices(base.sessions, base.clock).service(),
            commitment.service(self._requests.keep, self._commitments.take),
        ]

    def sweeps(self) -> list[Sweep]:
        """One proof a destination, so that a slow one keeps nobody waiting; and housekeeping."""
        base = self._base
        every = base.config.schedule
        objects = [d.name for d in base.config.destinations if d.kind not in MESSAGE_DESTINATIONS]
        return [
            *(
                Sweep(
                    f"proof {name}", every.proof_s, functools.partial(self._prover.run_once, name)
                )
                for name in objects
            ),
            Sweep("proof of the unknown", every.lease_s, self._prover.give_up_unknown),
            Sweep("commitment reports", every.proof_s, self._requests.run_once),
            Sweep("arrival retention", every.retention_s, self._forget),
        ]

    def _forget(self) -> None:
        """Steps, notices and transactions go when studies of their age do."""
        base = self._base
        before = base.clock() - dt.timedelta(days=base.config.storage.retention_days)
        with base.sessions.begin() as session:
            arrivals.purge(session, before)
        requests.forget(base.sessions, before)


def _nodes(base: Foundation) -> dict[str, Node]:
    """Where peers take commitment reports: as listed, else as the destination of that AE title."""
    config = base.config
    known: list[Destination | CommitmentPeer] = [d for d in config.destinations if d.ae_title]
    known += config.commitment.peers
    return {
        peer.ae_title: Node(
            ae_title=peer.ae_title,
            host=peer.host,
            port=peer.port,
            calling_ae=config.dicom.ae_title,
            tls=tls_context(peer.tls),
            timeout_s=peer.timeout_s,
        )
        for peer in known
        if peer.ae_title
    }
