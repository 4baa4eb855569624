"""Model packs: a folder with weights and a pack.toml that says what they are.

The manifest is the pack's contract: labels with their thresholds and codes, the SHA-256 of every
file, licence and notice. It is read without loading a model library; unknown keys are refused.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inference.errors import PackError
from inference.findings import Acuity, Code, PackRef
from inference.toml_tables import Table

FORMAT = 1
MANIFEST = "pack.toml"
MODALITIES = ("CT", "MR")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Label:
    """One output of a head.

    Attributes:
        id: stable identifier, e.g. ``intracranial_hemorrhage``.
        display: what a reader sees.
        threshold: probability strictly above which the finding is present.
        localized: whether saliency of this label points at a place worth showing.
        saliency_threshold: saliency at or above which a voxel belongs to the finding's mask.
    """

    id: str
    display: str
    acuity: Acuity
    threshold: float
    code: Code
    localized: bool = True
    site: Code | None = None
    saliency_threshold: float = 0.5


@dataclass(frozen=True)
class ModelFiles:
    """A model's configuration and weights, relative to the pack."""

    config: str
    weights: str


@dataclass(frozen=True)
class Head:
    """A diagnostic head: for which modality, its files, its labels in output order."""

    name: str
    modality: str
    files: ModelFiles
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class PackFile:
    """A file of the pack and what it must be."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a pack.toml says. `digest` is the SHA-256 of the file itself."""

    name: str
    version: str
    family: str
    title: str
    licence: str
    notice: str
    encoder: ModelFiles
    heads: tuple[Head, ...]
    created: dt.date
    research_only: bool = True
    demonstration: bool = False
    files: tuple[PackFile, ...] = ()
    digest: str = ""

    @property
    def ref(self) -> PackRef:
        """How results name this pack."""
        return PackRef(self.name, self.version, self.digest, self.licence, self.notice)

    def head_for(self, modality: str) -> Head | None:
        """The head that reads a modality, or None."""
        return next((head for head in self.heads if head.modality == modality), None)


def load_manifest(directory: Path) -> Manifest:
    """Read and validate a pack's manifest; weights are not touched.

    Raises:
        PackError: no pack there, or a key is missing, unknown or wrong; the message names it.
    """
    path = directory / MANIFEST
    where = f"{directory.name}/{MANIFEST}"
    try:
        raw = path.read_bytes()
        data = tomllib.loads(raw.decode("utf-8"))
    except FileNotFoundError as error:
        raise PackError(f"{directory.name}: not a pack, it holds no {MANIFEST}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PackError(f"{where}: not readable as TOML ({error}); restore the file") from error
    manifest = _manifest(Table(data, where, ""))
    _check_whole(manifest, where)
    return replace(manifest, digest=hashlib.sha256(raw).hexdigest())


def verify(directory: Path) -> None:
    """Compare size and SHA-256 of every file with the manifest.

    Raises:
        PackError: naming the first file that is missing or differs.
    """
    for file in load_manifest(directory).files:
        path, name = directory / file.path, f"{directory.name}/{file.path}"
        if not path.is_file():
            raise PackError(f"{name}: missing; restore the pack")
        size = path.stat().st_size
        if size != file.size_bytes:
            raise PackError(f"{name}: {size} bytes instead of {file.size_bytes}; restore the pack")
        if _sha256(path) != file.sha256:
            raise PackError(f"{name}: SHA-256 differs from the manifest; restore the pack")


def write_manifest(
    directory: Path, manifest: Manifest, extra_files: Iterable[str] = ()
) -> Manifest:
    """Write pack.toml for files that already lie in `directory` and return it as loaded.

    Size and SHA-256 are computed for every file the manifest names and for `extra_files`;
    `manifest.files` and `manifest.digest` are ignored.

    Raises:
        PackError: a named file is missing, or the manifest would not load.
    """
    names = sorted({*_model_files(manifest), *extra_files})
    for name in names:
        if not (directory / name).is_file():
            raise PackError(f"{directory.name}/{name}: missing; write it before the manifest")
    files = tuple(
        PackFile(name, _sha256(directory / name), (directory / name).stat().st_size)
        for name in names
    )
    text = _to_toml(replace(manifest, files=files))
    temporary = directory / f"{MANIFEST}.tmp"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(directory / MANIFEST)
    return load_manifest(directory)


def _manifest(top: Table) -> Manifest:
    if (found := top.take("format", int)) != FORMAT:
        raise top.wrong("format", f"{found} is not {FORMAT}, the one this version reads")
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
        encoder=_model_paths(top.sub("encoder")),
        heads=tuple(_head(item) for item in top.subs("heads")),
        files=tuple(_file(item) for item in top.subs("files")),
    )
    top.end()
    return manifest


def _model_paths(table: Table) -> ModelFiles:
    files = ModelFiles(config=table.path("config"), weights=table.path("weights"))
    table.end()
    return files


def _head(table: Table) -> Head:
    head = Head(
        name=table.take("name", str),
        modality=table.choice("modality", MODALITIES),
        files=ModelFiles(config=table.path("config"), weights=table.path("weights")),
        labels=tuple(_label(item) for item in table.subs("labels")),
    )
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
    )
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


def _check_whole(manifest: Manifest, where: str) -> None:
    listed = [file.path for file in manifest.files]
    for name in _model_files(manifest):
        if name not in listed:
            raise PackError(f"{where}: files: {name} is used but not listed with its SHA-256")
    groups = {
        "files": listed,
        "heads.name": [head.name for head in manifest.heads],
        "heads.modality": [head.modality for head in manifest.heads],
        **{f"heads.{h.name}.labels": [label.id for label in h.labels] for h in manifest.heads},
    }
    for key, values in groups.items():
        for value in values:
            if values.count(value) > 1:
                raise PackError(f"{where}: {key}: {value!r} occurs twice; names must be unique")


def _model_files(manifest: Manifest) -> list[str]:
    models = [manifest.encoder, *(head.files for head in manifest.heads)]
    return [name for files in models for name in (files.config, files.weights)]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _to_toml(manifest: Manifest) -> str:
    top = {"format": FORMAT, **_scalars(manifest, skip=("digest",))}
    lines = [_pair(key, value) for key, value in top.items()]
    lines += ["", "[encoder]", *_pairs(vars(manifest.encoder))]
    for head in manifest.heads:
        lines += ["", "[[heads]]", *_pairs({"name": head.name, "modality": head.modality})]
        lines += _pairs(vars(head.files))
        for label in head.labels:
            lines += ["", "[[heads.labels]]", *_pairs(_scalars(label))]
            lines.append(f"code = {_inline(label.code)}")
            lines += [f"site = {_inline(label.site)}"] if label.site else []
    for file in manifest.files:
        lines += ["", "[[files]]", *_pairs(vars(file))]
    return "\n".join(lines) + "\n"


def _scalars(value: object, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    kinds = (str, bool, int, float, dt.date)
    return {k: v for k, v in vars(value).items() if isinstance(v, kinds) and k not in skip}


def _pairs(values: dict[str, Any]) -> list[str]:
    return [_pair(key, value) for key, value in values.items()]


def _pair(key: str, value: Any) -> str:
    if isinstance(value, dt.date):
        return f"{key} = {value.isoformat()}"
    # TOML's basic strings, booleans and numbers are written as JSON writes them.
    return f"{key} = {json.dumps(value)}"


def _inline(code: Code) -> str:
    return "{ " + ", ".join(_pairs(vars(code))) + " }"
