"""The published pipeline's configuration files, YAML or JSON, read and checked as a whole.

A file names a study, where to write, the tokenizer and the model; the last two are files of their
own or stand inside. Relative paths are tried beside the file that holds them, then in the working
directory, which is where the published pipeline looks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import ConfigError
from inference.prima.preparation import OFFICIAL_DESCRIPTION

KEYS = frozenset(
    [
        "study_dir",
        "output_dir",
        "study_description",
        "tokenizer_model_config",
        "vqvae_config",
        "prima_model_config",
        "device",
        "batch_size",
        "num_workers",
        "max_tokens_per_chunk",
    ]
)
"""The last three steer memory in the published pipeline and have no effect here."""
TOKENIZER_KEYS = ("vqvae_config", "model")
COMPONENT_KEYS = (
    "clip_ckpt",
    "diagnosis_heads_json",
    "referral_heads_json",
    "priority_head_ckpt",
)
YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class HeadFile:
    """One head of a heads JSON: its file, the output that is meant, and its threshold."""

    name: str
    path: Path
    index: int
    threshold: float


@dataclass(frozen=True)
class Components:
    """A model in parts: the CLIP checkpoint and one file per head."""

    clip: Path
    diagnoses: tuple[HeadFile, ...]
    referrals: tuple[HeadFile, ...]
    priority: Path


@dataclass(frozen=True)
class PipelineConfig:
    """One run of the published pipeline.

    Attributes:
        study_dir: directory with one sub-directory per series.
        output_dir: where the predictions go; made if missing.
        study_description: text that the model reads beside the images.
        tokenizer: the `vqvae_config` object.
        tokenizer_weights: its checkpoint.
        model: the full checkpoint, or the parts.
        device: "cpu", "cuda", "auto", ...
    """

    study_dir: Path
    output_dir: Path
    study_description: str
    tokenizer: Mapping[str, Any]
    tokenizer_weights: Path
    model: Path | Components
    device: str = "auto"

    @property
    def predictions_file(self) -> Path:
        """Where the predictions are written."""
        return self.output_dir / f"{self.study_dir.resolve().name}_predictions.json"


def read_config(file: Path, study_dir: Path | None = None) -> PipelineConfig:
    """Read a pipeline configuration and everything it refers to but the weights.

    Args:
        file: YAML (.yaml, .yml) or JSON.
        study_dir: read this study instead of the file's.

    Raises:
        ConfigError: a file or key is missing, unknown or wrong; the message names it.
    """
    settings = _read(file)
    unknown = sorted(set(settings) - KEYS - _comments(settings))
    if unknown:
        known = ", ".join(sorted(KEYS))
        raise ConfigError(f"{file.name}: unknown key {unknown[0]!r}; known keys: {known}")
    folder = file.resolve().parent
    tokenizer, weights = _tokenizer(settings, file.name, folder)
    description = settings.get("study_description", OFFICIAL_DESCRIPTION)
    if not isinstance(description, str):
        raise ConfigError(f"{file.name}: study_description must be a text")
    return PipelineConfig(
        study_dir=study_dir
        or _located(_text(settings, "study_dir", file.name), folder, "study_dir"),
        output_dir=Path(_text(settings, "output_dir", file.name)),
        study_description=description,
        tokenizer=tokenizer,
        tokenizer_weights=weights,
        model=_model(settings, file.name, folder),
        device=str(settings.get("device", "auto")),
    )


def _tokenizer(
    settings: Mapping[str, Any], name: str, folder: Path
) -> tuple[Mapping[str, Any], Path]:
    given = settings.get("tokenizer_model_config", settings if "vqvae_config" in settings else None)
    if given is None:
        raise ConfigError(
            f"{name}: tokenizer_model_config is missing: give a file, or the object itself"
        )
    inner, name, folder = _object(given, name, folder, "tokenizer_model_config")
    for key in TOKENIZER_KEYS:
        if isinstance(inner.get(key), Mapping):
            inner = inner[key]
            break
    else:
        raise ConfigError(f"{name}: vqvae_config is missing: the object with the tokenizer's sizes")
    # The published pipeline goes on with random weights where this is missing.
    return inner, _located(_text(inner, "ckpt_path", name), folder, "ckpt_path")


def _model(settings: Mapping[str, Any], name: str, folder: Path) -> Path | Components:
    if "prima_model_config" not in settings:
        raise ConfigError(
            f"{name}: prima_model_config is missing: give a file, or the object itself"
        )
    inner, name, folder = _object(
        settings["prima_model_config"], name, folder, "prima_model_config"
    )
    if "full_model_ckpt" in inner:
        full = _text(inner, "full_model_ckpt", name)
        return _located(full, folder, "full_model_ckpt")
    missing = [key for key in COMPONENT_KEYS if key not in inner]
    if missing:
        raise ConfigError(
            f"{name}: {missing[0]} is missing: give full_model_ckpt, or {', '.join(COMPONENT_KEYS)}"
        )
    found = {key: _located(_text(inner, key, name), folder, key) for key in COMPONENT_KEYS}
    return Components(
        clip=found["clip_ckpt"],
        diagnoses=read_heads(found["diagnosis_heads_json"]),
        referrals=read_heads(found["referral_heads_json"]),
        priority=found["priority_head_ckpt"],
    )


def read_heads(file: Path) -> tuple[HeadFile, ...]:
    """Read a heads JSON: name -> [labels file, [[checkpoint, output, threshold], ...]].

    Only the first entry of a name counts, as in the published pipeline.

    Raises:
        ConfigError: it is none; evaluation lists with pairs look alike and are refused.
    """
    heads = []
    for name, value in _read(file).items():
        try:
            _, ((path, index, threshold), *_) = value
            head = HeadFile(
                name=name,
                path=_located(str(path), file.resolve().parent, name),
                index=int(index),
                threshold=float(threshold),
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{file.name}: {name}: expected [labels file, [[checkpoint, output, threshold]]]"
            ) from error
        heads.append(head)
    if not heads:
        raise ConfigError(f"{file.name}: no heads in it")
    return tuple(heads)


def _object(given: Any, name: str, folder: Path, key: str) -> tuple[Mapping[str, Any], str, Path]:
    """An object that stands in the file, or in one that it names; its name and folder."""
    if isinstance(given, Mapping):
        return given, name, folder
    if not isinstance(given, str) or not given:
        raise ConfigError(f"{name}: {key} must be the path of a file, or the object itself")
    file = _located(given, folder, key)
    return _read(file), file.name, file.resolve().parent


def _read(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not a readable text file") from error
    try:
        settings = _parse_yaml(text) if file.suffix in YAML_SUFFIXES else json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{file.name}: not {_kind(file)}: {error}") from error
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{file.name}: must hold keys and values")
    return settings


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error


def _kind(file: Path) -> str:
    return "YAML" if file.suffix in YAML_SUFFIXES else "JSON (YAML files end in .yaml or .yml)"


def _text(settings: Mapping[str, Any], key: str, name: str) -> str:
    value = settings.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}: {key} is missing: a path is needed")
    return value


def _located(given: str, folder: Path, key: str) -> Path:
    for path in (folder / given, Path(given)):
        if path.exists():
            return path
    raise ConfigError(f"{key}: {given}: no such file or directory")


def _comments(settings: Mapping[str, Any]) -> set[str]:
    """The samples explain themselves in keys like `_comment`."""
    return {key for key in settings if str(key).startswith("_")}
