"""The wishes of one service, from the environment that its systemd unit gives."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import SettingError

__all__ = ["SecretWish", "Settings", "credential", "required", "stack_name"]

# abra cuts stack names at this length, and Docker refuses longer names of secrets: see docs/runbook.md.
STACK_NAME_LIMIT = 45
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def required(environment: Mapping[str, str], name: str) -> str:
    """Return a variable that must be there.

    Raises:
        SettingError: It is missing or empty.
    """
    value = environment.get(name, "")
    if not value:
        raise SettingError(
            f"{name} is not set", hint="the unit in nix/modules gives it; start the unit, not the program"
        )
    return value


def credential(path: str, environment: Mapping[str, str] | None = None) -> Path:
    """Return where a secret file is: a bare name is a credential that systemd has loaded for the unit."""
    environment = os.environ if environment is None else environment
    if "/" in path:
        return Path(path)
    return Path(required(environment, "CREDENTIALS_DIRECTORY")) / path


def stack_name(domain: str) -> str:
    """Return the name of the stack that serves `domain`, as abra builds it: `.` becomes `_`.

    Raises:
        SettingError: It is no domain, or abra would cut the name.
    """
    if not _DOMAIN.fullmatch(domain):
        raise SettingError(f"{domain!r} is no domain", hint="give one like `drone.ci.example.org`, in lower case")
    stack = domain.replace(".", "_")
    if len(stack) >= STACK_NAME_LIMIT:
        raise SettingError(
            f"stack name {stack!r} has {len(stack)} characters, {STACK_NAME_LIMIT - 1} are allowed",
            hint="choose a shorter `coopcloud-ci.domain`",
        )
    return stack


@dataclass(frozen=True)
class SecretWish:
    """A Docker secret: its name in the recipe, the variable that holds its version, the file that holds its value."""

    name: str
    variable: str
    file: Path

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str]) -> SecretWish:
        """Read `name:VARIABLE:file`.

        Raises:
            SettingError: It is not in that form.
        """
        parts = text.split(":", 2)
        if len(parts) != 3 or not all(parts):
            raise SettingError(f"RECONCILE_SECRETS holds {text!r}", hint="write each as `name:VARIABLE:file`")
        return cls(name=parts[0], variable=parts[1], file=credential(parts[2], environment))


@dataclass(frozen=True)
class Settings:
    """What one unit asks for.

    Attributes:
        name: The service, for example `proxy`; its record has this name.
        after: The service before it in the chain, or empty.
        state_dir: Where records and the lock are.
        network: The overlay network that the proxy and the apps share.
        domain: Where the service answers; its stack is named after it.
        recipe: The recipe (command `app`).
        version: The recipe's version; empty for the newest at the first deploy, kept from then on.
        compose: The compose file (command `stack`).
        image: The image that `compose` names.
        image_archive: A file that `docker load` reads, which holds `image`.
        app_env: Lines `KEY=value` for the app's `.env`, or for the compose file.
        secrets: The secrets that it needs.
        probe: An address that must answer; empty for none.
        probe_address: Where `probe` is asked, `host:port`.
        probe_certificate: A file; the first certificate in it must be the one that is served.
        timeout: How long it may take to become healthy, in seconds.
    """

    name: str
    after: str
    state_dir: Path
    network: str
    domain: str
    recipe: str = ""
    version: str = ""
    compose: Path | None = None
    image: str = ""
    image_archive: Path | None = None
    app_env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[SecretWish, ...] = ()
    probe: str = ""
    probe_address: str = "127.0.0.1:443"
    probe_certificate: Path | None = None
    timeout: float = 300.0

    @property
    def stack(self) -> str:
        """The stack's name."""
        return stack_name(self.domain)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables.

        Raises:
            SettingError: One is missing or wrong.
        """

        def path(name: str) -> Path | None:
            return Path(environment[name]) if environment.get(name) else None

        certificate = environment.get("RECONCILE_PROBE_CERTIFICATE", "")
        settings = cls(
            name=required(environment, "RECONCILE_NAME"),
            after=environment.get("RECONCILE_AFTER", ""),
            state_dir=Path(required(environment, "RECONCILE_STATE_DIR")),
            network=required(environment, "RECONCILE_NETWORK"),
            domain=required(environment, "RECONCILE_DOMAIN"),
            recipe=environment.get("RECONCILE_RECIPE", ""),
            version=environment.get("RECONCILE_VERSION", ""),
            compose=path("RECONCILE_COMPOSE"),
            image=environment.get("RECONCILE_IMAGE", ""),
            image_archive=path("RECONCILE_IMAGE_ARCHIVE"),
            app_env=_read_env(path("RECONCILE_APP_ENV")),
            secrets=tuple(
                SecretWish.parse(text, environment) for text in environment.get("RECONCILE_SECRETS", "").split()
            ),
            probe=environment.get("RECONCILE_PROBE", ""),
            probe_address=environment.get("RECONCILE_PROBE_ADDRESS") or "127.0.0.1:443",
            probe_certificate=credential(certificate, environment) if certificate else None,
            timeout=float(environment.get("RECONCILE_TIMEOUT") or 300),
        )
        stack_name(settings.domain)
        return settings


def _read_env(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    return {key: value for key, _, value in (line.partition("=") for line in lines)}
