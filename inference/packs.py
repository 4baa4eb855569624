"""Model packs: a folder with weights and a pack.toml that says what they are.

The manifest is the pack's contract: labels with their thresholds and codes, the SHA-256 of every
file, licence and notice. It is read without loading a model library; unknown keys are refused.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from inference import manifest_toml
from inference.errors import PackError
from inference.manifest import Head, HeadKind, Label, Manifest, ModelFiles, PackFile
from inference.toml_tables import Table

__all__ = [
    "MANIFEST",
    "Head",
    "HeadKind",
    "Label",
    "Manifest",
    "ModelFiles",
    "PackFile",
    "load_manifest",
    "verify",
    "write_manifest",
]

MANIFEST = "pack.toml"
CHUNK = 1 << 20


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
    manifest = manifest_toml.read(Table(data, where, ""))
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
    names = sorted({*manifest.model_files, *extra_files})
    for name in names:
        if not (directory / name).is_file():
            raise PackError(f"{directory.name}/{name}: missing; write it before the manifest")
    files = tuple(
        PackFile(name, _sha256(directory / name), (directory / name).stat().st_size)
        for name in names
    )
    text = manifest_toml.write(replace(manifest, files=files))
    temporary = directory / f"{MANIFEST}.tmp"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(directory / MANIFEST)
    return load_manifest(directory)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
