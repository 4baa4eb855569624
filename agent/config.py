"""config.toml and the environment → one frozen `Config`; anything unknown or wrong is refused.

Precedence: environment (``WORKLIST_AGENT_SECTION__KEY``) over the file over the built-in defaults.
Secrets are never keys: they come from files (``password_file``) or from the environment.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from agent import settings
from agent.errors import ConfigError

ENV_PREFIX = "WORKLIST_AGENT_"
#: Variables with our prefix that are not configuration keys.
OTHER_VARIABLES = frozenset({"WORKLIST_AGENT_GOLDEN", "WORKLIST_AGENT_CONFIG"})

#: Keys that hold a path, in whatever section.
PATH_KEYS = frozenset(
    {
        "api_key_file",
        "ca",
        "certificate",
        "client_secret_file",
        "data_dir",
        "key",
        "password_file",
        "path",
        "secret_file",
        "token_file",
    }
)


class Config(BaseSettings):
    """Everything the agent may be told, read once at start."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__"
    )

    storage: settings.StorageSettings = settings.StorageSettings()
    database: settings.DatabaseSettings = settings.DatabaseSettings()
    dicom: settings.DicomSettings = settings.DicomSettings()
    web: settings.WebSettings = settings.WebSettings()
    audit: settings.AuditSettings = settings.AuditSettings()
    assembly: settings.AssemblySettings = settings.AssemblySettings()
    routing: settings.RoutingSettings = settings.RoutingSettings()
    packs: dict[str, settings.PackSettings] = {}
    inference: settings.InferenceSettings = settings.InferenceSettings()
    priority: settings.PrioritySettings = settings.PrioritySettings()
    results: settings.ResultSettings = settings.ResultSettings()
    destinations: tuple[settings.Destination, ...] = ()
    delivery: settings.DeliverySettings = settings.DeliverySettings()
    priors: settings.PriorSettings = settings.PriorSettings()
    commitment: settings.CommitmentSettings = settings.CommitmentSettings()
    log: settings.LogSettings = settings.LogSettings()
    schedule: settings.ScheduleSettings = settings.ScheduleSettings()
    report: settings.ReportSettings = settings.ReportSettings()
    triage: settings.TriageSettings = settings.TriageSettings()
    hl7: settings.Hl7Settings = settings.Hl7Settings()
    mwl: settings.MwlSettings = settings.MwlSettings()
    ups: settings.UpsSettings = settings.UpsSettings()
    dicomweb: settings.DicomWebSettings = settings.DicomWebSettings()

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        for rule in self.routing.rules:
            for pack in rule.all_packs:
                if pack not in self.packs:
                    known = ", ".join(sorted(self.packs)) or "none"
                    raise ValueError(
                        f"routing rule {rule.name!r} names pack {pack!r}; known: {known}"
                    )
        if any("," in name for name in self.packs):
            raise ValueError("a pack's name holds no comma")
        if self.report.pack and self.report.pack not in self.packs:
            known = ", ".join(sorted(self.packs)) or "none"
            raise ValueError(f"report.pack names {self.report.pack!r}; known: {known}")
        names = [d.name for d in self.destinations]
        doubled = {n for n in names if names.count(n) > 1}
        if doubled:
            raise ValueError(f"destination names must differ: {', '.join(sorted(doubled))}")
        told = {d.name for d in self.destinations if d.kind in settings.MESSAGE_DESTINATIONS}
        if self.assembly.count_from in told:
            raise ValueError(f"assembly.count_from: {self.assembly.count_from!r} holds no images")
        if self.priors.source in told:
            raise ValueError(f"priors.from: {self.priors.source!r} holds no images")
        if self.priors.source and self.priors.source not in names:
            raise ValueError(
                f"priors.from names {self.priors.source!r}; "
                f"known destinations: {', '.join(names) or 'none'}"
            )
        if self.assembly.count_from and self.assembly.count_from not in names:
            raise ValueError(
                f"assembly.count_from names {self.assembly.count_from!r}; "
                f"known destinations: {', '.join(names) or 'none'}"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then what the file said (given as init values)."""
        return env_settings, init_settings

    @property
    def priors_dir(self) -> Path:
        """Where earlier studies lie while they are read."""
        return self.storage.data_dir / "priors"

    @property
    def database_url(self) -> str:
        """The configured URL, or SQLite below the data directory."""
        if self.database.url:
            return self.database.url
        return f"sqlite:///{self.storage.data_dir.absolute() / 'worklist-agent.db'}"


def load(path: Path | None = None) -> Config:
    """Read the configuration once.

    Args:
        path: the TOML file; None = ``$WORKLIST_AGENT_CONFIG``, else ``config.toml`` in the current
            directory if there is one, else the built-in defaults.

    Raises:
        ConfigError: names the file or variable, the key, the cause and what is allowed.
    """
    path = path or _default_path()
    data = _read_toml(path) if path else {}
    _refuse_unknown_variables(os.environ)
    return from_mapping(data, source=str(path) if path else "built-in defaults", base=_base(path))


def from_mapping(data: Mapping[str, Any], *, source: str, base: Path | None = None) -> Config:
    """Validate a configuration that was read elsewhere (tests, the demo).

    Raises:
        ConfigError: as `load`.
    """
    try:
        config = Config(**_absolute_paths(dict(data), base))
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from None
    except SettingsError as error:
        raise ConfigError(f"environment: {error}; lists and tables are given as JSON") from None
    return config


def _default_path() -> Path | None:
    named = os.environ.get("WORKLIST_AGENT_CONFIG")
    if named:
        return Path(named)
    local = Path("config.toml")
    return local if local.is_file() else None


def _base(path: Path | None) -> Path | None:
    return path.resolve().parent if path else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; copy config.toml from the distribution, or give --config"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _absolute_paths(data: dict[str, Any], base: Path | None) -> dict[str, Any]:
    """Resolve relative paths against the file that names them, not the working directory."""
    if base is None:
        return data
    return {key: _resolve(key, value, base) for key, value in data.items()}


def _resolve(key: str, value: Any, base: Path) -> Any:
    if isinstance(value, dict):
        return {k: _resolve(k, v, base) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolve(key, v, base) for v in value]
    if key in PATH_KEYS and isinstance(value, str) and value:
        return str(base / value)
    return value


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    sections = {name.upper() for name in Config.model_fields}
    for name in environ:
        if not name.upper().startswith(ENV_PREFIX) or name in OTHER_VARIABLES:
            continue
        section = name.upper().removeprefix(ENV_PREFIX).split("__")[0]
        if section not in sections:
            allowed = ", ".join(sorted(sections))
            raise ConfigError(f"environment variable {name}: unknown section; allowed: {allowed}")


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for item in error.errors():
        where = tuple(item["loc"])
        key = ".".join(str(part) for part in where) or "(whole file)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{source}: unknown key {key}; {_allowed_keys(where)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = _shown(where, item.get("input"))
            lines.append(f"{source}: {key}: {message}{shown}")
    return "\n".join(lines)


def _shown(where: tuple[str | int, ...], value: Any) -> str:
    secret = any("password" in str(part) or "token" in str(part) for part in where)
    scalar = isinstance(value, (str, int, float, bool))
    return f" (got {value!r})" if scalar and not secret else ""


def _allowed_keys(where: tuple[str | int, ...]) -> str:
    known = sorted(_fields_at(where[:-1]))
    wrong = str(where[-1])
    if "password" in wrong or "token" in wrong or "secret" in wrong:
        return "secrets do not belong in this file: use password_file or token_file"
    close = difflib.get_close_matches(wrong, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(known)}"


def _fields_at(where: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in where:
        if part in model.model_fields:
            model = _section_type(model.model_fields[str(part)].annotation)
    return [found.alias or name for name, found in model.model_fields.items()]


def _section_type(annotation: Any) -> type[BaseModel]:
    """The section class inside a ``tuple`` or ``dict`` annotation, or the class itself."""
    candidates = [annotation, *get_args(annotation)]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return Config


__all__ = ["Config", "from_mapping", "load"]
