"""The composition root: configuration → objects, wired once; start order, stop order."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from agent import __version__, installation, operations, staff, sweeps, worklist_scp
from agent.analysis.process import InferenceProcess, InlineEngine
from agent.arrival import Arrival
from agent.audit.service import AuditService
from agent.clock import Clock, utc_now
from agent.config import Config
from agent.delivery import outbox as delivery_outbox
from agent.delivery import registry
from agent.delivery.sender import Outbox
from agent.foundation import Foundation, lay
from agent.intake import recovery
from agent.intake.handler import IntakeHandler, IntakeSettings
from agent.observability import logs
from agent.orders.service import OrdersService
from agent.own_series import OwnSeries
from agent.routing.book import RuleBook
from agent.schedule import Schedule
from agent.web import access_parts
from agent.web.app import create_app
from agent.web.dependencies import PackNotice, WebDependencies
from agent.web.dicomweb import wiring as dicomweb
from agent.web.pictures import Pictures
from agent.web.server import WebServer
from agent.web.workitems import routes as workitem_routes
from agent.workitems import room as workitems
from agent.workitems.room import ReadingTasks
from db.queries import claims, drafts
from dicom_nodes import statuses, tls
from dicom_nodes.scp import dispatch
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings

log = structlog.get_logger(__name__)

DRAIN_S = 10.0
GIVE_BACK_S = 5.0
IDLE_POLL_S = 5.0  # the schedule wakes the outbox more often
MB = 1_000_000


class Agent:
    """The running agent; `start` once, `stop` once."""

    def __init__(
        self,
        base: Foundation,
        analyser: InferenceProcess | InlineEngine,
        server: StorageServer,
        workers: Sequence[staff.Works],
        outbox: Outbox,
        schedule: Schedule,
        web: WebServer | None,
        own: OwnSeries,
        orders: OrdersService,
        audit: AuditService,
    ) -> None:
        self._base = base
        self._analyser = analyser
        self._server = server
        self._workers = workers
        self._outbox = outbox
        self._schedule = schedule
        self._web = web
        self._own = own
        self._orders = orders
        self._audit = audit
        self._occupancy = installation.Occupancy(base.config.storage.data_dir)

    @property
    def dicom_port(self) -> int:
        """Where the DICOM node listens."""
        return self._server.port

    @property
    def web_port(self) -> int | None:
        """Where the page is served; None when it is off."""
        return self._web.port if self._web else None

    @property
    def hl7_port(self) -> int | None:
        """Where orders are taken; None when they are not."""
        return self._orders.port

    def describe(self) -> str:
        """One line for the terminal."""
        dicom, web = self._base.config.dicom, self._base.config.web
        scheme = "https" if web.tls.certificate else "http"
        page = f", worklist page {scheme}://{web.host}:{self.web_port}" if self._web else ""
        hl7 = f", HL7 at {self._base.config.hl7.host}:{self.hl7_port}" if self.hl7_port else ""
        return f"listening: DICOM {dicom.ae_title} at {dicom.host}:{self.dicom_port}{hl7}{page}"

    def start(self) -> None:
        """Mend what an earlier life left, then open the doors, the network last but the page.

        Raises:
            AgentError, NodeError: another agent runs here, or a port is taken; all is closed again.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self._base.engine.dispose)
            self._occupancy.__enter__()
            undo.callback(self.stop)
            self._open()
            undo.pop_all()

    def _open(self) -> None:
        base = self._base
        recovery.reconcile(base.spool, base.engine, is_own=self._own.is_own)
        sweeps.sweep_spool(base)
        with base.sessions.begin() as session:
            freed = claims.release_all_of(session, base.owner, base.clock())
            drafts.release_all_of(session, base.owner, base.clock())
        self._analyser.start()
        for worker in self._workers:
            worker.start()
        self._outbox.start()
        self._server.start()
        self._orders.start()
        self._schedule.start()
        self._audit.started()
        if self._web:
            self._web.start()
        log.info("agent_started", dicom_port=self.dicom_port, web_port=self.web_port, freed=freed)

    def stop(self) -> None:
        """Close the doors first, finish the work at hand, leave the rest to the record."""
        log.info("agent_stopping")
        self._server.stop(DRAIN_S)
        self._orders.stop()
        self._schedule.stop()
        for worker in self._workers:
            worker.stop(DRAIN_S)
        self._analyser.stop()
        for worker in self._workers:  # an interrupted study is given back
            worker.stop(GIVE_BACK_S)
        self._outbox.stop(DRAIN_S)
        if self._web:
            self._web.stop()
        self._audit.stopped()
        self._base.engine.dispose()
        self._occupancy.__exit__()
        log.info("agent_stopped")


def build(config: Config, clock: Clock = utc_now, log_file: Path | None = None) -> Agent:
    """Wire the agent; opens nothing but the database.

    Args:
        config: what was configured.
        clock: now, in UTC.
        log_file: where the inference process logs; None = standard error.

    Raises:
        AgentError, NodeError, InferenceError: something the configuration names cannot work.
    """
    base = lay(config, clock, log_file)
    own = OwnSeries(base.sessions)
    analyser = _analyser(base)
    outbox = Outbox(
        base.sessions,
        registry.routes(config.destinations, config.dicom.ae_title),
        config.delivery,
        base.results,
        owner=f"{base.owner}delivery",
        clock=clock,
        poll_s=IDLE_POLL_S,
        unsupported=config.report.push_unsupported,
    )
    workers = staff.workers(base, analyser, outbox)
    orders = OrdersService(base, outbox.wake)
    arrival = Arrival(base)
    tasks = ReadingTasks(base)
    audit = AuditService(base)
    intake = _intake(base, own)
    server = _server(base, intake, [*arrival.services(), *tasks.services()])
    base.metrics.watch_associations(lambda: server.active_associations)
    return Agent(
        base,
        analyser,
        server,
        workers,
        outbox,
        Schedule(
            [
                *sweeps.housekeeping(base, outbox.wake, analyser, intake.released_at),
                *arrival.sweeps(),
                *tasks.sweeps(),
                *orders.sweeps(),
                *audit.sweeps(),
            ]
        ),
        _web(base, analyser, intake) if config.web.enabled else None,
        own,
        orders,
        audit,
    )


def _analyser(base: Foundation) -> InferenceProcess | InlineEngine:
    settings = base.config.inference
    paths = {name: pack.path for name, pack in base.config.packs.items()}
    if settings.executor == "inline":
        return InlineEngine(paths, settings.device)
    return InferenceProcess(
        paths,
        settings.device,
        settings.timeout_s,
        base.metrics.inference_restarted,
        functools.partial(logs.configure, base.config.log, file=base.log_file),
    )


def _intake(base: Foundation, own: OwnSeries) -> IntakeHandler:
    return IntakeHandler(
        base.spool,
        base.engine,
        IntakeSettings(low_water_bytes=base.config.storage.low_water_mark_mb * MB),
        is_own=own.is_own,
        observe=_count_instances(base),
    )


def _server(
    base: Foundation, handler: IntakeHandler, services: Sequence[dispatch.Service]
) -> StorageServer:
    config = base.config
    worklist_service = worklist_scp.service(base.sessions, config.priority, base.clock)
    service = dispatch.combine([worklist_service, *services])
    return StorageServer(
        _server_settings(config),
        handler,
        contexts=service.contexts,
        evt_handlers=service.evt_handlers,
    )


def _count_instances(base: Foundation) -> Callable[[int, int], None]:
    def observe(status: int, size_bytes: int) -> None:
        stored = status == statuses.SUCCESS
        outcome = "stored" if stored else "refused"
        base.metrics.instance_received(outcome, size_bytes if stored else 0)

    return observe


def _server_settings(config: Config) -> ServerSettings:
    dicom = config.dicom
    secure = None
    if dicom.tls.certificate and dicom.tls.key:
        secure = tls.server_context(dicom.tls.certificate, dicom.tls.key, dicom.tls.ca)
    return ServerSettings(
        ae_title=dicom.ae_title,
        host=dicom.host,
        port=dicom.port,
        max_pdu=dicom.max_pdu,
        max_associations=dicom.max_associations,
        max_associations_per_peer=dicom.max_associations_per_peer,
        allowed_calling_ae=dicom.allowed_calling_ae,
        allowed_networks=dicom.allowed_networks,
        require_called_ae=dicom.require_called_ae,
        network_timeout_s=dicom.network_timeout_s,
        acse_timeout_s=dicom.acse_timeout_s,
        dimse_timeout_s=dicom.dimse_timeout_s,
        tls=secure,
        engine=dicom.engine,
    )


def _web(
    base: Foundation, analyser: InferenceProcess | InlineEngine, intake: IntakeHandler
) -> WebServer:
    config = base.config
    pictures = Pictures(base.sessions, base.spool.root, base.results)
    deps = WebDependencies(
        sessions=base.sessions,
        web=config.web,
        priority=config.priority,
        metrics=base.metrics,
        health=lambda: base.health(worker_alive=analyser.alive),
        overlay=pictures.overlay,
        slices=pictures.slice,
        results_dir=base.results,
        spool_dir=base.spool.root,
        destinations=config.destinations,
        retry_study=lambda study_id, who: _retry_study(base, study_id, who),
        retry_delivery=lambda delivery_id, who: _retry_delivery(base, delivery_id, who),
        packs={
            name: PackNotice(m.title, m.version, m.notice, m.demonstration)
            for name, m in base.manifests.items()
        },
        clock=base.clock,
        version=__version__,
        dicomweb=dicomweb.of(base, intake),
        rules=RuleBook.of(config),
        **access_parts.of(base),
    )
    app = create_app(deps)
    workitem_routes.install(app, workitems.manager(base))
    return WebServer(app, config.web.host, config.web.port, config.web.tls)


def _retry_study(base: Foundation, study_id: int, who: str) -> None:
    with base.sessions.begin() as session:
        operations.retry_study(session, str(study_id), base.clock(), who=who)


def _retry_delivery(base: Foundation, delivery_id: int, who: str) -> None:
    with base.sessions.begin() as session:
        delivery_outbox.retry_delivery(session, delivery_id, base.clock(), who=who)
