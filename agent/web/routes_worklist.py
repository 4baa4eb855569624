"""The ordered worklist: as a page, as the fragment that refreshes it, and as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query
from fastapi.encoders import jsonable_encoder
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agent import worklist
from agent.access.principal import Role
from agent.settings import Level
from agent.web.access import require
from agent.web.dependencies import WebDependencies
from agent.web.pages import Pages
from agent.worklist import PageRequest, Sort, Tally, WorklistEntry, WorklistFilters, WorklistPage
from db.engine import reading
from db.states import ReadingState, StudyState


class WorklistQuery(BaseModel):
    """Filters and paging as they stand in the URL. An empty value is no restriction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Annotated[str, Field(max_length=16)] = ""
    level: Level | None = None
    state: StudyState | None = None
    reading: ReadingState | Literal["open", "all"] = "open"
    finding: Annotated[str, Field(max_length=64)] = ""
    dead: bool = False
    sort: Sort = Sort.ORDER
    page: Annotated[int, Field(ge=1)] = 1
    size: Annotated[int, Field(ge=1, le=200)] = 50

    @field_validator("level", "state", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @property
    def filters(self) -> WorklistFilters:
        """The same for `agent.worklist`."""
        return WorklistFilters(
            modality=self.modality.strip().upper() or None,
            level=self.level,
            state=self.state,
            reading_states=self._reading_states,
            text=self.finding.strip(),
            dead_letters=self.dead,
        )

    @property
    def _reading_states(self) -> tuple[ReadingState, ...]:
        if self.reading == "open":
            return worklist.OPEN
        return tuple(ReadingState) if self.reading == "all" else (ReadingState(self.reading),)

    def url(self, path: str = "/", **changes: Any) -> str:
        """This query as a URL, with some values changed; defaults are left out."""
        changed = self.model_copy(update=changes)
        values = changed.model_dump(mode="json", exclude_defaults=True)
        return f"{path}?{urlencode(values)}" if values else path


Asked = Annotated[WorklistQuery, Query()]


def router(deps: WebDependencies, pages: Pages) -> APIRouter:
    """``/``, ``/fragments/worklist`` and ``/api/worklist``."""
    routes = APIRouter(tags=["worklist"], dependencies=[Depends(require(Role.VIEWER))])

    tally = Tally()

    def read(query: WorklistQuery) -> WorklistPage:
        with reading(deps.sessions) as session:
            return worklist.entries(
                session,
                deps.priority,
                deps.clock(),
                query.filters,
                PageRequest(query.page, query.size),
                query.sort,
                tally,
            )

    @routes.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(query: Asked) -> str:
        return pages.render("worklist.html", page=read(query), query=query)

    @routes.get("/fragments/worklist", response_class=HTMLResponse, include_in_schema=False)
    def fragment(query: Asked) -> str:
        return pages.render("_worklist.html", page=read(query), query=query)

    @routes.get("/api/worklist")
    def api(query: Asked) -> dict[str, Any]:
        """Open studies in reading order; ranks do not depend on the filters."""
        return page_json(read(query))

    return routes


def page_json(page: WorklistPage) -> dict[str, Any]:
    """The wire form of a worklist page."""
    return {
        "as_of": page.as_of.isoformat(),
        "page": page.number,
        "pages": page.pages,
        "size": page.size,
        "total": page.total,
        "open_total": page.open_total,
        "open_by_level": {level.value: n for level, n in page.open_by_level.items()},
        "dead_letters": {
            "number": page.dead_letters.number,
            "destinations": page.dead_letters.destinations,
        },
        "studies": [entry_json(entry) for entry in page.entries],
    }


def entry_json(entry: WorklistEntry) -> dict[str, Any]:
    """The wire form of one study on the worklist."""
    encoded: dict[str, Any] = jsonable_encoder(entry)
    return {
        **encoded,
        "shadow": entry.shadow,
        "links": {
            "page": f"/studies/{entry.study.key}",
            "self": f"/api/studies/{entry.study.key}",
        },
    }
