"""Every environment variable of the dashboard, typed and explained.

Names begin with `CCCI_DASHBOARD_`, but for `COOPCLOUD_CI_STATE`. None is required: without Drone the pages stand on the
folder of results alone. A setting that is unknown or wrong refuses to start, in one line.

Example:
    COOPCLOUD_CI_STATE=/var/lib/coopcloud-ci CCCI_DASHBOARD_PUBLIC_URL=https://ci.example.org python -m dashboard
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pytest_coopcloud.errors import BadInputError

__all__ = ["PREFIX", "BadSettingsError", "SettingRow", "Settings", "env_name", "load_settings", "setting_rows"]

PREFIX = "CCCI_DASHBOARD_"
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?")


class BadSettingsError(BadInputError):
    """The environment does not say what the dashboard needs to start."""


class Settings(BaseSettings):
    """What the dashboard is told by its environment. Durations are seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    state_dir: Path = Field(
        default_factory=lambda: _state_home() / "coopcloud-ci",
        validation_alias=AliasChoices("COOPCLOUD_CI_STATE"),
        description="The state directory of the runs.",
    )
    results_dir: Path | None = Field(
        None,
        description="Where runs write their results: `<run id>/results.json`. `<state>/runs` where it is not given.",
    )
    title: str = Field("Co-op Cloud recipe tests", max_length=80, description="What stands above each page.")
    public_url: str = Field(
        "", description="The address of the dashboard, for the badge snippet and the feed; what was asked, where empty."
    )
    forge_url: str = Field("", description="The forge's address, for links to pull requests and commits.")

    drone_url: str = Field("", description="Where Drone answers, without `/api`. Empty: no queue is shown.")
    drone_public_url: str = Field("", description="Drone's address in links; `DRONE_URL` where it is empty.")
    drone_token: SecretStr = Field(
        SecretStr(""), description="A Drone token that may read the CI repository; a public one needs none."
    )
    drone_token_file: Path | None = Field(None, description="A file that holds `DRONE_TOKEN`.")
    drone_repo: str = Field("", description="The CI repository in Drone, `owner/name`.")
    drone_interval: float = Field(5.0, ge=0.02, description="How often Drone's builds are looked at.")
    runners: int = Field(1, ge=1, le=64, description="Builds that run at the same time, for the expected starts.")

    stale_days: float = Field(60.0, gt=0, description="A badge says `stale` when the last run that counts is older.")
    silent_after: float = Field(
        5400.0, gt=0, description="A run that writes nothing for so long, and has not ended, is not called running."
    )
    rescan_interval: float = Field(
        30.0, ge=0.05, description="How often the whole folder is compared, for file systems that report no changes."
    )
    keep_runs: int = Field(
        0, ge=0, description="Finished runs that are kept of each recipe; older ones are removed. 0: all."
    )
    keep_days: float = Field(0.0, ge=0, description="Runs that ended longer ago are removed. 0: none.")

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8020, ge=1, le=65535, description="The port to listen on.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Which lines are logged.")

    @model_validator(mode="before")
    @classmethod
    def _read_token(cls, values: dict[str, Any]) -> dict[str, Any]:
        path = values.get("drone_token_file")
        if path:
            if values.get("drone_token"):
                raise ValueError(f"{PREFIX}DRONE_TOKEN and {PREFIX}DRONE_TOKEN_FILE are both given: keep one of them")
            try:
                values["drone_token"] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{PREFIX}DRONE_TOKEN_FILE={path} cannot be read: {error}") from None
        return values

    @field_validator("public_url", "forge_url", "drone_url", "drone_public_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value and not _URL.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is no address, give one like `https://ci.example.org`")
        return value.rstrip("/")

    @field_validator("drone_repo")
    @classmethod
    def _check_repository(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9._-]{1,100}", value):
            raise ValueError(f"{value[:80]!r} is no repository, give it as `owner/name`")
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Settings:
        if bool(self.drone_url) != bool(self.drone_repo):
            raise ValueError(f"{PREFIX}DRONE_URL and {PREFIX}DRONE_REPO belong together: give both, or none")
        return self

    @property
    def runs_dir(self) -> Path:
        """The folder of results."""
        return self.results_dir or self.state_dir / "runs"


@dataclass(frozen=True)
class SettingRow:
    """One setting, as the reference prints it."""

    name: str
    default: str
    description: str


def env_name(field: str) -> str:
    """Return the environment variable of a field of `Settings`."""
    alias = Settings.model_fields[field].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"{PREFIX}{field.upper()}"


def setting_rows() -> list[SettingRow]:
    """List all settings: name, default and description, in the order in which they are declared."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if name == "state_dir":
            shown = "$XDG_STATE_HOME/coopcloud-ci"
        else:
            shown = "" if default in (None, "") or isinstance(default, SecretStr) else str(default)
        rows.append(SettingRow(env_name(name), shown, field.description or ""))
    return rows


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        BadSettingsError: Something is unknown or wrong; the message is one line and holds no secret.
    """
    known = {row.name for row in setting_rows()}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise BadSettingsError(f"unknown setting {name}" + (f", did you mean {near[0]}?" if near else ""))
    try:
        return Settings()
    except ValidationError as error:
        raise BadSettingsError("; ".join(_line(one) for one in error.errors(include_url=False))) from None


def _line(error: Any) -> str:
    message = " ".join(str(error["msg"]).removeprefix("Value error, ").split())
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    return f"{env_name(name) if name in Settings.model_fields else name}: {message}"


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
