"""Compose the result objects of one analysis and write them as DICOM files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from agent.errors import AgentError, ComposeError
from agent.results import context as contexts
from agent.results import registry
from agent.results.material import Material
from inference.errors import InferenceError

log = structlog.get_logger(__name__)

# What highdicom and pydicom raise on sources they cannot express.
LIBRARY_ERRORS = (AttributeError, KeyError, IndexError, TypeError, ValueError, OSError)


def compose(
    context: contexts.ResultContext, kinds: Sequence[str] | None = None
) -> list[contexts.ComposedObject]:
    """Compose the wanted kinds (default: the context's), in the order of delivery: SR first.

    Raises:
        ComposeError: the report cannot be made, or a kind is unknown. A fault in any other kind
            leaves that kind out, with a log event: the report must not depend on a picture.
    """
    return in_delivery_order(list(_composed(context, kinds)))


def compose_files(
    context: contexts.ResultContext,
    directory: Path,
    kinds: Sequence[str] | None = None,
    earlier: Sequence[contexts.ComposedObject] = (),
) -> list[tuple[contexts.ComposedObject, Path]]:
    """Compose and write one object at a time; the datasets given back are dropped (None).

    Memory stays at the largest object instead of the sum of all.

    Args:
        context: of the analysis.
        directory: where the files go.
        kinds: default: the context's.
        earlier: objects of this analysis that exist already, for the report to refer to.
    """
    written = [
        (dataclasses.replace(made, dataset=None), write([made], directory)[0])
        for made in _composed(context, kinds, earlier)
    ]
    return sorted(written, key=lambda pair: contexts.KINDS.index(pair[0].kind))


def write(objects: Sequence[contexts.ComposedObject], directory: Path) -> list[Path]:
    """Write each object as ``<SOP Instance UID>.dcm``: temporary file, fsync, rename.

    The same context gives the same bytes, so writing over an earlier file changes nothing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = [_write(made, directory) for made in objects]
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return paths


def in_delivery_order(
    objects: Sequence[contexts.ComposedObject],
) -> list[contexts.ComposedObject]:
    """Report first, because routing rules read it; then the page, the masks, the maps."""
    return sorted(objects, key=lambda made: contexts.KINDS.index(made.kind))


def _composed(
    context: contexts.ResultContext,
    kinds: Sequence[str] | None,
    earlier: Sequence[contexts.ComposedObject] = (),
) -> Iterator[contexts.ComposedObject]:
    wanted = context.options.kinds if kinds is None else tuple(kinds)
    composers = {kind: registry.composer(kind) for kind in wanted}
    material = Material(context)
    made: list[contexts.ComposedObject] = list(earlier)
    for kind in registry.COMPOSERS:
        if kind not in composers:
            continue
        try:
            for one in composers[kind](material, tuple(made)):
                made.append(dataclasses.replace(one, dataset=None))
                yield one
        except (AgentError, InferenceError, *LIBRARY_ERRORS) as error:
            if isinstance(error, AgentError) or kind == "sr":
                raise _compose_error(kind, error) from error
            # The type alone: a library's message may quote the header.
            cause = type(error).__name__
            log.error("result_kind_left_out", analysis=context.analysis_id, kind=kind, cause=cause)


def _compose_error(kind: str, error: Exception) -> AgentError:
    if isinstance(error, AgentError):
        return error
    return ComposeError(
        f"the {kind} object could not be composed: {type(error).__name__} in the encoding "
        "library; see the log, and file an issue with the source's header without patient data"
    )


def _write(made: contexts.ComposedObject, directory: Path) -> Path:
    path = directory / f"{made.sop_uid}.dcm"
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        made.dataset.save_as(file, enforce_file_format=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path
