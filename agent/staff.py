"""Who works in the rooms: each room wired to what it needs, each worker to its rooms."""

from __future__ import annotations

import datetime as dt
from typing import Protocol

from sqlalchemy.orm import Session

from agent import composing, explaining, prior_archive, prior_fetching, rooms
from agent.analysis.process import InferenceProcess, InlineEngine
from agent.analysis.provisional import ProvisionalRoom, ProvisionalWorker
from agent.analysis.room import FAMILY_MIN_SERIES, AnalysisRoom, Tell
from agent.composing import explain_nothing
from agent.composition import Composition
from agent.delivery import outbox as delivery
from agent.delivery.announcements import Kind
from agent.delivery.sender import Outbox
from agent.drafting import backends, guarding, triaging
from agent.drafting.room import DraftingRoom
from agent.drafting.worker import DraftingSettings, DraftingWorker
from agent.foundation import Foundation
from agent.orders import joining
from agent.orders.prioritizing import Policy
from agent.routing.room import RoutingRoom
from agent.worker import Observe, Worker, WorkerSettings
from db.models import Analysis, Study
from db.queries.claims import Claim

#: Studies composed at once where one of them may be explained for a minute.
COMPOSERS = 2
#: Drafts under way at once against servers; in this process there is one model.
DRAFTS_AT_ONCE = 4

Analyser = InferenceProcess | InlineEngine


class Works(Protocol):
    """Anything that works in a thread of its own."""

    def start(self) -> None:
        """Begin."""

    def stop(self, timeout_s: float) -> None:
        """Finish what is at hand, then end."""


def workers(base: Foundation, analyser: Analyser, outbox: Outbox) -> list[Works]:
    """One worker for the model, one for the quick rooms, so that neither waits for the other.

    Where findings are explained before their objects are made, composing has workers of its own.
    Beside the flow: one for provisional priorities and some for drafts, where they are configured.
    """
    config, composition = base.config, _composition(base)
    inference = config.inference
    orders = Policy(config.priority, config.destinations)
    routing = RoutingRoom(
        base.sessions,
        config.routing,
        config.priority,
        base.clock,
        join_order=lambda session, study, now: joining.join(session, study, orders, now),
    )
    analysis = _analysis(base, analyser)
    explain = _before_composing(_explaining(base, analyser), _prior(base, analyser))
    results = _composing(base, composition, outbox, explain)
    flow = rooms.flow(
        routing.run, analysis.run, results.run, analysis.run_many, inference.batch_studies
    )
    slow = {"analysis"} if explain is explain_nothing else {"analysis", "composing"}
    posts = [
        ("model", [room for room in flow if room.name == "analysis"]),
        ("rooms", [room for room in flow if room.name not in slow]),
        *(
            (f"results{number}", [room for room in flow if room.name == "composing"])
            for number in range(COMPOSERS * ("composing" in slow))
        ),
    ]
    staff: list[Works] = [
        Worker(part, base.sessions, _settings(base, name), base.clock, _observer(base))
        for name, part in posts
    ]
    if config.assembly.provisional:
        room = _provisional(base, composition, analyser, outbox)
        staff.append(ProvisionalWorker(room, f"{base.owner}provisional"))
    return staff + _drafting(base, composition, analyser, outbox)


def min_series(base: Foundation) -> dict[str, int]:
    """Image series that each configured pack needs before it is asked."""
    return {name: FAMILY_MIN_SERIES.get(m.family, 0) for name, m in base.manifests.items()}


def tell(base: Foundation, kind: Kind, occasion: str = "") -> Tell:
    """How a room tells those destinations that are told of a study and not sent objects.

    The outbox looks for due rows more often than once a second: nobody needs to wake it.
    """

    def told(session: Session, study: Study, analysis: Analysis, now: dt.datetime) -> None:
        delivery.announce(
            session,
            study,
            analysis,
            base.config.destinations,
            now,
            kind=kind,
            ordered=base.config.priority.ordered.get(study.ordered_priority.upper()),
            occasion=occasion,
        )

    return told


def _analysis(base: Foundation, analyser: Analyser) -> AnalysisRoom:
    config = base.config
    return AnalysisRoom(
        sessions=base.sessions,
        spool=base.spool.root,
        analyser=analyser,
        packs=config.packs,
        pack_refs={name: manifest.ref for name, manifest in base.manifests.items()},
        policy=config.priority,
        max_attempts=config.inference.max_attempts,
        clock=base.clock,
        observe=base.metrics.result_committed,
        min_series=min_series(base),
        tell=tell(base, Kind.PRIORITY),
    )


def _composition(base: Foundation) -> Composition:
    config = base.config
    return Composition(
        spool=base.spool.root,
        results=base.results,
        settings=config.results,
        destinations=config.destinations,
        installation=base.installation,
        policy=config.priority,
        unsupported_sentences=config.report.push_unsupported,
    )


def _explaining(base: Foundation, analyser: Analyser) -> composing.Explain:
    """The step that locates findings, where a configured pack needs one and it is wanted."""
    from inference import registry
    from inference.explain.options import ExplainOptions

    settings = base.config.inference
    explains = {n for n, m in base.manifests.items() if registry.family(m.family).explain}
    if not settings.lime_samples or not explains:
        return explain_nothing
    return explaining.ExplainingStep(
        sessions=base.sessions,
        spool=base.spool.root,
        analyser=analyser,
        packs=explains,
        options=ExplainOptions(
            samples=settings.lime_samples,
            series=settings.lime_series,
            findings=base.config.results.max_segments,
            seconds=min(settings.lime_seconds, settings.timeout_s / 2),
        ),
        clock=base.clock,
    ).run


def _prior(base: Foundation, analyser: Analyser) -> composing.Explain:
    """The step that fetches an earlier study for comparison, where an archive is named for it."""
    config, settings = base.config, base.config.priors
    compared = {n for n, m in base.manifests.items() if m.family == prior_fetching.FAMILY}
    if not settings.source or not compared:
        return explain_nothing
    destination = next(d for d in config.destinations if d.name == settings.source)
    return prior_fetching.PriorStep(
        sessions=base.sessions,
        archive=prior_archive.of(destination, config.dicom.ae_title, settings.timeout_s),
        analyser=analyser,
        packs=compared,
        directory=config.priors_dir,
        low_water_bytes=config.storage.low_water_mark_mb * 1_000_000,
        timeout_s=settings.timeout_s,
        clock=base.clock,
    ).run


def _before_composing(explain: composing.Explain, prior: composing.Explain) -> composing.Explain:
    """Both steps; explaining writes the findings anew, so the earlier study's scores come last."""
    if prior is explain_nothing:
        return explain

    def both(claim: Claim, owner: str) -> None:
        explain(claim, owner)
        prior(claim, owner)

    return both


def _composing(
    base: Foundation, composition: Composition, outbox: Outbox, explain: composing.Explain
) -> composing.ComposingRoom:
    report, triage = base.config.report, base.config.triage
    return composing.ComposingRoom(
        sessions=base.sessions,
        composition=composition,
        clock=base.clock,
        wake_outbox=outbox.wake,
        template=guarding.worded if report.enabled else None,
        model_follows=report.backend != "template" or triage.enabled,
        report_pack=report.pack,
        tell=tell(base, Kind.REPORT),
        explain=explain,
    )


def _provisional(
    base: Foundation, composition: Composition, analyser: Analyser, outbox: Outbox
) -> ProvisionalRoom:
    config = base.config
    return ProvisionalRoom(
        sessions=base.sessions,
        composition=composition,
        analyser=analyser,
        assembly=config.assembly,
        routing=config.routing,
        packs=config.packs,
        policy=config.priority,
        clock=base.clock,
        lease=dt.timedelta(seconds=config.inference.lease_s),
        min_series=min_series(base),
        wake_outbox=outbox.wake,
        tell=tell(base, Kind.PRIORITY),
    )


def _drafting(
    base: Foundation, composition: Composition, analyser: Analyser, outbox: Outbox
) -> list[DraftingWorker]:
    """As many as there may be drafts at once; none where the template is all that is wanted."""
    config = base.config
    writes = config.report.enabled and config.report.backend != "template"
    if not config.report.enabled or not (writes or config.triage.enabled):
        return []
    room = DraftingRoom(
        sessions=base.sessions,
        composition=composition,
        encoder=analyser,
        clock=base.clock,
        drafter=backends.drafter(config, base.manifests),
        pack=config.report.pack,
        triager=triaging.triager(config.triage),
        guard=guarding.guard(),
        wake_outbox=outbox.wake,
        tell_report=tell(base, Kind.REPORT, "draft"),
        tell_priority=tell(base, Kind.PRIORITY, "triage"),
    )
    lease = dt.timedelta(seconds=config.inference.lease_s)
    count = 1 if config.report.backend == "local" else DRAFTS_AT_ONCE
    return [
        DraftingWorker(
            room.run,
            base.sessions,
            DraftingSettings(f"{base.owner}draft{number}", lease),
            base.clock,
        )
        for number in range(count)
    ]


def _settings(base: Foundation, name: str) -> WorkerSettings:
    inference = base.config.inference
    return WorkerSettings(
        owner=f"{base.owner}{name}",
        lease=dt.timedelta(seconds=inference.lease_s),
        max_attempts=inference.max_attempts,
    )


def _observer(base: Foundation) -> Observe:
    def observe(room: str, seconds: float, ok: bool) -> None:
        base.metrics.room_done(room, seconds, "ok" if ok else "failed")

    return observe
