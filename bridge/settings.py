"""Every environment variable of the bridge, typed and explained; secrets come as files.

Names begin with `CCCI_BRIDGE_`, but for `POLL_REPOS`, `POLL_ORGS`, `POLL_TOPIC` and `COOPCLOUD_CI_STATE`. Each secret can
be given as `..._FILE`, the path of a file that holds it (what a host should do), or by itself (for trials). A setting
that is missing, unknown, too short or a placeholder refuses to start, in one line.

Example:
    CCCI_BRIDGE_FORGE_URL=https://git.example.org CCCI_BRIDGE_FORGE_TOKEN_FILE=/run/secrets/forge \
    CCCI_BRIDGE_DRONE_URL=https://drone.example.org CCCI_BRIDGE_DRONE_TOKEN_FILE=/run/secrets/drone \
    CCCI_BRIDGE_DRONE_REPO=coop-cloud/recipe-ci POLL_ORGS=coop-cloud python -m bridge
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pytest_coopcloud.errors import BadInputError

__all__ = ["PREFIX", "BadSettingsError", "SettingRow", "Settings", "env_name", "load_settings", "setting_rows"]

PREFIX = "CCCI_BRIDGE_"
SECRET_LENGTH = 16

_SECRETS = ("forge_token", "forge_read_token", "drone_token", "webhook_secrets")
_REQUIRED_SECRETS = ("forge_token", "drone_token")
_URLS = ("forge_url", "forge_public_url", "drone_url", "drone_public_url", "dashboard_url")
_PLACEHOLDER = re.compile(r"change.?me|replace.?me|placeholder|example|your.?(token|secret)|xxxx|<.*>", re.I)
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FULL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9._-]{1,100}")

Names = Annotated[tuple[str, ...], NoDecode]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode]


class BadSettingsError(BadInputError):
    """The environment does not say what the bridge needs to start."""


def _named(name: str) -> AliasChoices:
    return AliasChoices(name)


class Settings(BaseSettings):
    """What the bridge is told by its environment. Durations are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    forge_url: str = Field(description="Where Gitea (or Forgejo) answers, without `/api/v1`.")
    forge_public_url: str = Field("", description="The forge's address in links; `FORGE_URL` where it is empty.")
    forge_token: SecretStr = Field(
        SecretStr(""),
        description="The bot's token: scopes `write:issue`, `write:repository` (commit statuses; without it there are "
        "none), `read:organization`, `read:user`.",
    )
    forge_token_file: Path | None = Field(None, description="A file that holds `FORGE_TOKEN`.")
    forge_read_token: SecretStr = Field(
        SecretStr(""),
        description="A second token of the same bot for all that only reads: `read:issue`, `read:repository`, "
        "`read:organization`, `read:user`. `FORGE_TOKEN` where it is empty.",
    )
    forge_read_token_file: Path | None = Field(None, description="A file that holds `FORGE_READ_TOKEN`.")
    members_org: str = Field(
        "recipe-maintainers",
        description="The organisation whose members may start a test. The bot must be a member of it as well, else "
        "private members look like strangers.",
    )
    ignore_users: Names = Field((), description="Logins whose comments never count, such as other bots.")

    poll_repos: Names = Field(
        (), validation_alias=_named("POLL_REPOS"), description="Enrolled repositories: `owner/name`, by comma or space."
    )
    poll_repos_file: Path | None = Field(
        None,
        validation_alias=_named("POLL_REPOS_FILE"),
        description="A file of more of them, one a line, `#` begins a comment; read again when it changes.",
    )
    poll_orgs: Names = Field(
        (),
        validation_alias=_named("POLL_ORGS"),
        description="Organisations of which every repository with the topic `POLL_TOPIC` is enrolled.",
    )
    poll_topic: str = Field(
        "coopcloud-ci", validation_alias=_named("POLL_TOPIC"), description="The topic that enrols a repository."
    )
    poll_interval: float = Field(25.0, ge=0.05, le=30.0, description="How often new comments are looked for.")
    enrol_interval: float = Field(300.0, ge=1.0, description="How often the repositories of `POLL_ORGS` are listed.")
    poll_parallel: int = Field(8, ge=1, le=64, description="Requests to the forge at the same time.")
    comment_max_age: float = Field(
        259200.0,
        ge=60.0,
        description="A comment older than this is not run any more; counts while the bridge was away.",
    )
    settle: float = Field(
        3.0,
        ge=0.0,
        le=60.0,
        description="When a comment was found by polling: how long its pull request must show no push before its head is "
        "pinned. The forge lists a push a moment after the branch has moved.",
    )

    webhook_secrets: Secrets = Field(
        (),
        description="Secrets of `POST /hook`, by comma or line; any of them signs. None: the route answers 404.",
    )
    webhook_secrets_file: Path | None = Field(None, description="A file that holds `WEBHOOK_SECRETS`.")
    webhook_limit: int = Field(1024 * 1024, ge=1024, description="The largest body that `POST /hook` reads.")

    drone_url: str = Field(description="Where Drone answers, without `/api`.")
    drone_public_url: str = Field("", description="Drone's address in links; `DRONE_URL` where it is empty.")
    drone_token: SecretStr = Field(
        SecretStr(""), description="A Drone token of a user who may write to the CI repository, and is no admin."
    )
    drone_token_file: Path | None = Field(None, description="A file that holds `DRONE_TOKEN`.")
    drone_repo: str = Field(description="The CI repository in Drone, `owner/name`: its `.drone.yml` runs the test.")
    drone_branch: str = Field("", description="The branch of the CI repository; its default branch where empty.")

    state_dir: Path = Field(
        default_factory=lambda: _state_home() / "coopcloud-ci",
        validation_alias=_named("COOPCLOUD_CI_STATE"),
        description="Where `bridge.sqlite3` lies.",
    )
    results_dir: Path | None = Field(
        None,
        description="Where runs write their results: `<run id>/results.json`. `<state>/runs` where it is not given; the "
        "word `none`: this machine sees no results, and Drone's own status is the verdict.",
    )
    dashboard_url: str = Field("", description="Where the dashboard answers; a run's page is `<it>/run/<run id>`.")

    progress_interval: float = Field(5.0, ge=0.02, description="How often a running build is looked at.")
    edit_interval: float = Field(10.0, ge=0.0, description="The shortest time between two edits of one comment.")
    in_doubt: float = Field(
        10.0,
        ge=0.0,
        description="How long to look for the trace of a request whose answer was lost, before it is sent again.",
    )
    run_deadline: float = Field(
        5400.0,
        ge=1.0,
        description="A build that runs longer is given up and cancelled. More than the timeout of the CI repository.",
    )
    queue_deadline: float = Field(86400.0, ge=1.0, description="A build that waits longer is given up and cancelled.")
    zombie_grace: float = Field(
        90.0, ge=0.0, description="A run that has ended, while Drone says it is running, is cancelled after this."
    )
    result_grace: float = Field(
        20.0, ge=0.0, description="How long after its build a run that was killed may still write its results."
    )
    limit_user_hour: int = Field(20, ge=1, description="Builds that one person may start in an hour.")
    limit_repo_hour: int = Field(30, ge=1, description="Builds that one repository may start in an hour.")
    limit_active: int = Field(100, ge=1, description="Builds that may be queued or running.")
    commit_status: bool = Field(True, description="Whether the tested commit gets a status.")
    status_context: str = Field("coop-cloud/testme", description="The name of that status.")

    api_timeout: float = Field(10.0, ge=0.1, description="How long one request to the forge or to Drone may take.")
    response_limit: int = Field(4 * 1024 * 1024, ge=65536, description="The largest answer that is read.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8010, ge=1, le=65535, description="The port to listen on.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Which lines are logged.")

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in _SECRETS:
            path = values.get(f"{name}_file")
            if not path:
                continue
            if values.get(name):
                raise ValueError(f"{env_name(name)} and {env_name(name)}_FILE are both given: keep one of them")
            try:
                values[name] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{env_name(name)}_FILE={path} cannot be read: {error}") from None
        return values

    @field_validator("poll_repos", "poll_orgs", "ignore_users", "webhook_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in re.split(r"[\s,]+", value) if part) if isinstance(value, str) else value

    @field_validator("poll_repos", "drone_repo")
    @classmethod
    def _check_repositories(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        for name in (value,) if isinstance(value, str) else value:
            if not _FULL_NAME.fullmatch(name):
                raise ValueError(f"{name[:80]!r} is no repository, give it as `owner/name`")
        return value

    @field_validator("poll_orgs", "members_org")
    @classmethod
    def _check_owners(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        for name in (value,) if isinstance(value, str) else value:
            if not _OWNER.fullmatch(name):
                raise ValueError(f"{name[:80]!r} is no organisation, give the name alone")
        return value

    @field_validator(*_URLS)
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?", value):
            raise ValueError(f"{value[:80]!r} is no address, give one like `https://git.example.org`")
        return value.rstrip("/")

    @field_validator(*_SECRETS)
    @classmethod
    def _check_secret(cls, value: SecretStr | tuple[SecretStr, ...]) -> SecretStr | tuple[SecretStr, ...]:
        for secret in (value,) if isinstance(value, SecretStr) else value:
            text = secret.get_secret_value()
            if text and len(text) < SECRET_LENGTH:
                raise ValueError(f"it has {len(text)} characters, a secret has {SECRET_LENGTH} at least")
            if text and (_PLACEHOLDER.search(text) or len(set(text)) < 4):
                raise ValueError("it is a placeholder, put the real one there")
            if text and not text.isascii():
                raise ValueError("it has characters outside ASCII, which no token has")
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Settings:
        for name in _REQUIRED_SECRETS:
            if not getattr(self, name).get_secret_value():
                raise ValueError(f"{env_name(name)}_FILE is missing: {type(self).model_fields[name].description}")
        if not (self.poll_repos or self.poll_orgs or self.poll_repos_file):
            raise ValueError("POLL_REPOS and POLL_ORGS are empty: name the repositories whose comments count")
        return self

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.state_dir / "bridge.sqlite3"

    @property
    def runs_dir(self) -> Path | None:
        """The folder of results, or None where this machine sees none."""
        if self.results_dir is None:
            return self.state_dir / "runs"
        return None if str(self.results_dir) == "none" else self.results_dir

    @property
    def read_token(self) -> SecretStr:
        """The token for what only reads."""
        return self.forge_read_token if self.forge_read_token.get_secret_value() else self.forge_token

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for those who blot them out."""
        found = (self.forge_token, self.forge_read_token, self.drone_token, *self.webhook_secrets)
        return tuple(secret.get_secret_value() for secret in found if secret.get_secret_value())


@dataclass(frozen=True)
class SettingRow:
    """One setting, as the reference prints it."""

    name: str
    default: str
    description: str


def env_name(field: str) -> str:
    """Return the environment variable of a field of `Settings`."""
    alias = Settings.model_fields[field].validation_alias if field in getattr(Settings, "model_fields", {}) else None
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"{PREFIX}{field.upper()}"


def setting_rows() -> list[SettingRow]:
    """List all settings: name, default and description, in the order in which they are declared."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if field.is_required() or name in _REQUIRED_SECRETS:
            shown = "required"
        elif name == "state_dir":
            shown = "$XDG_STATE_HOME/coopcloud-ci"
        elif default in (None, "", ()) or isinstance(default, SecretStr):
            shown = ""
        else:
            shown = str(default)
        rows.append(SettingRow(env_name(name), shown, field.description or ""))
    return rows


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        BadSettingsError: Something is missing, unknown or wrong; the message is one line and holds no secret.
    """
    known = {row.name for row in setting_rows()}
    for name in sorted(os.environ):
        if name.startswith((PREFIX, "POLL_")) and name not in known:
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
    name = env_name(name) if name in Settings.model_fields else name
    if error["type"] == "missing":
        field = next(key for key in Settings.model_fields if env_name(key) == name)
        return f"{name} is missing: {Settings.model_fields[field].description}"
    return f"{name}: {message}"


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
