"""What an enrolment says about a recipe: `RecipeMeta`, checked.

Example:
    >>> RecipeMeta(health_path="/login", checks=[Check(path="/", contains="Sign in")]).health_status
    (200,)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from pytest_coopcloud.errors import BadEnrolmentError
from pytest_coopcloud.policy import Allow
from pytest_coopcloud.results import Stage

__all__ = ["Check", "RecipeMeta", "check_meta"]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, int) else value


Statuses = Annotated[tuple[int, ...], BeforeValidator(_several)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _below_the_domain(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must begin with `/`")
    return value


#: A path of the app, for example `/login`.
AppPath = Annotated[str, AfterValidator(_below_the_domain)]


class Check(_Model):
    """A question to the app that needs no code: ask a path, look at the answer.

    Attributes:
        path: What is asked, below the app's domain.
        status: The status, or several of them, that the answer may have.
        title: What the page's `<title>` must contain; nothing is asked where empty.
        contains: What the body must contain; nothing is asked where empty.
    """

    path: AppPath = "/"
    status: Statuses = (200,)
    title: str = ""
    contains: str = ""

    def __str__(self) -> str:
        return f"GET {self.path}"


class RecipeMeta(_Model):
    """What the trial of a recipe must know that its files do not say.

    Attributes:
        health_path: The path that answers when the app is up.
        health_status: The status, or several of them, that it answers with.
        extra_env: Keys of the `.env` beyond (or instead of) those of `.env.sample`. `{domain}`, `{run_id}` and
            `{base_domain}` are filled in.
        extra_domains: More hosts of this app, for example `{run_id}-sandbox.{base_domain}`; filled in likewise. They must
            end in the base domain, so that the wildcard certificate fits.
        secrets: Values of secrets that are not to be generated (`# generate=false`), by their name in the compose file.
        deploy_timeout: Seconds until a deployment must have converged; by default what the recipe's timeout label says.
        health_timeout: Seconds from convergence until the app must answer through the proxy.
        stage_timeout: Seconds that one stage may take.
        checks: Questions that are put after install, upgrade and restore.
        skip: Stages that are not run, each with its reason: `{"backup": "keeps no state"}`.
        vacuous_upgrade: Why an upgrade that changes nothing is right for this recipe; a failure where empty.
        sentinels: Whether a sentinel file is planted in every volume that is backed up.
        allow: What the recipe may ask of the host beyond the policy.
        dependencies: Commands that the trial needs on this machine (`jq`, ...); a missing one is said before anything runs.
    """

    health_path: AppPath = "/"
    health_status: Statuses = (200,)
    extra_env: Mapping[str, str] = Field(default_factory=dict)
    extra_domains: tuple[str, ...] = ()
    secrets: Mapping[str, str] = Field(default_factory=dict)
    deploy_timeout: float | None = Field(default=None, gt=0)
    health_timeout: float = Field(default=60.0, gt=0)
    stage_timeout: float = Field(default=1800.0, gt=0)
    checks: tuple[Check, ...] = ()
    skip: Mapping[Stage, str] = Field(default_factory=dict)
    vacuous_upgrade: str = ""
    sentinels: bool = True
    allow: Allow = Field(default_factory=Allow)
    dependencies: tuple[str, ...] = ()

    @field_validator("extra_env")
    @classmethod
    def _has_keys(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for key in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
                raise ValueError(f"{key[:80]!r} is no key of a `.env`")
        return value

    @field_validator("skip")
    @classmethod
    def _has_reasons(cls, value: Mapping[Stage, str]) -> Mapping[Stage, str]:
        for stage, reason in value.items():
            if stage is Stage.TEARDOWN:
                raise ValueError("teardown is never skipped")
            if not reason.strip():
                raise ValueError(f"say why {stage.value} is skipped")
        return value


def check_meta(given: RecipeMeta | Mapping[str, Any], where: Path | str) -> RecipeMeta:
    """Return a `RecipeMeta` of what a hook gave.

    Raises:
        BadEnrolmentError: A key or a value is wrong; the message names the file, the key and the nearest right one.
    """
    if isinstance(given, RecipeMeta):
        return given
    if not isinstance(given, Mapping):
        raise bad_enrolment(TypeError(f"it is of type {type(given).__name__}"), where)
    try:
        return RecipeMeta.model_validate(dict(given))
    except ValidationError as error:
        raise bad_enrolment(error, where) from error


def bad_enrolment(error: Exception, where: Path | str) -> BadEnrolmentError:
    """Turn what pydantic says of a wrong `RecipeMeta` into one sentence for the recipe's maintainer."""
    if not isinstance(error, ValidationError):
        return BadEnrolmentError(
            f"{where}: pytest_coopcloud_recipe_meta gave no RecipeMeta: {error}",
            hint="return a RecipeMeta, or a mapping",
        )
    said, hints = [], []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path)
        if problem["type"] == "extra_forbidden":
            said.append(f"{error.title} has no key {key!r}")
            hints.append(_nearest(error.title, path))
        else:
            # A value of a secret is shown nowhere, a wrong one included.
            shown = "" if path[:1] == ["secrets"] else f" (it is {str(problem['input'])[:80]!r})"
            said.append(f"{key or error.title}: {problem['msg']}{shown}")
    return BadEnrolmentError(
        f"{where}: {'; '.join(said)}", hint="; ".join(dict.fromkeys(hints)) or "see docs/reference.md, RecipeMeta"
    )


def _nearest(title: str, path: list[str]) -> str:
    models: Mapping[str, type[BaseModel]] = {"checks": Check, "allow": Allow}
    own: Mapping[str, type[BaseModel]] = {"Check": Check, "Allow": Allow}
    known = list(((models.get(path[0]) if path[1:] else own.get(title)) or RecipeMeta).model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
