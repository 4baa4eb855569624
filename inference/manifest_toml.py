"""Reads a pack's manifest out of TOML, refusing what it does not know, and writes it."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

from inference.findings import Acuity, Code
from inference.manifest import (
    MODALITIES,
    Head,
    HeadKind,
    Label,
    Manifest,
    ModelFiles,
    PackFile,
)
from inference.report import pack_section
from inference.toml_tables import Table

FORMAT = 1


def read(top: Table) -> Manifest:
    """The manifest that a whole TOML file holds, without its digest.

    Raises:
        PackError: a key is missing, unknown or wrong; the message names it.
    """
    if (found := top.take("format", int)) != FORMAT:
        raise top.wrong("format", f"{found} is not {FORMAT}, the one this version reads")
    report = pack_section.read(top.sub("report")) if top.has("report") else None
    manifest = Manifest(
        name=top.take("name", str),
        version=top.take("version", str),
        family=top.take("family", str),
        title=top.take("title", str),
        licence=top.take("licence", str),
        notice=top.take("notice", str),
        created=top.take("created", dt.date),
        research_only=top.take("research_only", bool),
        demonstration=top.take("demonstration", bool, False),
        origin=top.take("origin", str, ""),
        tokenizer=_model_files(top.sub("tokenizer")) if top.has("tokenizer") else None,
        encoder=_model_files(top.sub("encoder")),
        report=report,
        heads=tuple(_head(item) for item in _heads(top, needed=report is None)),
        files=tuple(_file(item) for item in top.subs("files")),
    )
    top.end()
    _check_whole(manifest, top)
    return manifest


def write(manifest: Manifest) -> str:
    """The TOML text of a manifest; keys at their default are left out where readers know it."""
    unsaid = ("digest",) if manifest.origin else ("digest", "origin")
    top = {"format": FORMAT, **_scalars(manifest, skip=unsaid)}
    lines = [_pair(key, value) for key, value in top.items()]
    if manifest.tokenizer:
        lines += ["", "[tokenizer]", *_pairs(vars(manifest.tokenizer))]
    lines += ["", "[encoder]", *_pairs(vars(manifest.encoder))]
    for head in manifest.heads:
        lines += ["", "[[heads]]", *_pairs({"name": head.name, "modality": head.modality})]
        if head.kind is not HeadKind.DIAGNOSES:
            lines.append(_pair("kind", str(head.kind)))
        lines += [_pair("levels", head.levels)] if head.levels else []
        lines += _pairs(vars(head.files))
        for label in head.labels:
            lines += ["", "[[heads.labels]]", *_pairs(_scalars(label))]
            lines.append(f"code = {_inline(label.code)}")
            lines += [f"site = {_inline(label.site)}"] if label.site else []
    lines += pack_section.write(manifest.report) if manifest.report else []
    for file in manifest.files:
        lines += ["", "[[files]]", *_pairs(vars(file))]
    return "\n".join(lines) + "\n"


def _heads(top: Table, *, needed: bool) -> list[Table]:
    """A pack that drafts findings may leave diagnosing to another."""
    return top.subs("heads") if needed or top.has("heads") else []


def _model_files(table: Table) -> ModelFiles:
    files = ModelFiles(config=table.path("config"), weights=table.path("weights"))
    table.end()
    return files


def _head(table: Table) -> Head:
    kind = HeadKind(table.choice("kind", tuple(HeadKind), HeadKind.DIAGNOSES))
    graded = kind is HeadKind.PRIORITY
    head = Head(
        name=table.take("name", str),
        modality=table.choice("modality", MODALITIES),
        files=ModelFiles(config=table.path("config"), weights=table.path("weights")),
        labels=() if graded else tuple(_label(item) for item in table.subs("labels")),
        kind=kind,
        levels=table.texts("levels") if graded else (),
    )
    if graded and len(set(head.levels)) < max(2, len(head.levels)):
        raise table.wrong("levels", "expected two or more different names, least urgent first")
    table.end()
    return head


def _label(table: Table) -> Label:
    label = Label(
        id=table.take("id", str),
        display=table.take("display", str),
        acuity=Acuity(table.choice("acuity", tuple(Acuity))),
        threshold=table.fraction("threshold"),
        localized=table.take("localized", bool, True),
        code=_code(table.sub("code")),
        site=_code(table.sub("site")) if table.has("site") else None,
        saliency_threshold=table.fraction("saliency_threshold", 0.5),
        index=table.take("index", int) if table.has("index") else None,
    )
    if label.index is not None and label.index < 0:
        raise table.wrong("index", f"{label.index} is below 0; outputs count from 0")
    table.end()
    return label


def _code(table: Table) -> Code:
    code = Code(table.take("value", str), table.take("scheme", str), table.take("meaning", str))
    table.end()
    return code


def _file(table: Table) -> PackFile:
    file = PackFile(table.path("path"), table.take("sha256", str), table.take("size_bytes", int))
    if not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise table.wrong("sha256", "not 64 lower-case hexadecimal digits")
    table.end()
    return file


def _check_whole(manifest: Manifest, top: Table) -> None:
    listed = [file.path for file in manifest.files]
    for name in manifest.model_files:
        if name not in listed:
            raise top.wrong("files", f"{name} is used but not listed with its SHA-256")
    groups = {
        "files": listed,
        "heads.name": [head.name for head in manifest.heads],
        "heads.modality": [f"{head.modality} {head.kind}" for head in manifest.heads],
        **{f"heads.{h.name}.labels": [label.id for label in h.labels] for h in manifest.heads},
    }
    for key, values in groups.items():
        for value in values:
            if values.count(value) > 1:
                raise top.wrong(key, f"{value!r} occurs twice; names must be unique")


def _scalars(value: object, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    kinds = (str, bool, int, float, dt.date)
    return {k: v for k, v in vars(value).items() if isinstance(v, kinds) and k not in skip}


def _pairs(values: dict[str, Any]) -> list[str]:
    return [_pair(key, value) for key, value in values.items()]


def _pair(key: str, value: Any) -> str:
    if isinstance(value, dt.date):
        return f"{key} = {value.isoformat()}"
    # TOML's basic strings, booleans, numbers and arrays are written as JSON writes them.
    return f"{key} = {json.dumps(value)}"


def _inline(code: Code) -> str:
    return "{ " + ", ".join(_pairs(vars(code))) + " }"
