"""Bring one service up: find out what differs from the wishes, deploy where something does, wait until it is healthy."""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from .abra import Abra
from .converge import state_of, wait_converged
from .engine import Engine, fingerprint
from .envfile import merged
from .errors import EngineStateError, PredecessorError, ReconcileError, SettingError
from .probe import wait_answers
from .records import Outcome, Record, one_at_a_time, read_record, write_record
from .settings import SecretWish, Settings

__all__ = ["AppService", "Service", "StackService", "reconcile", "secret_version"]


def say(settings: Settings, text: str) -> None:
    """Write one line for the journal."""
    print(f"{settings.name}: {text}", file=sys.stderr, flush=True)


def secret_version(wish: SecretWish) -> str:
    """Return a version that follows from the value: the same value has the same name, a new one needs a new secret.

    Docker's secrets cannot be changed. Eight hex digits of the hash of a random token tell nothing of use about it.
    """
    try:
        value = wish.file.read_bytes()
    except OSError as error:
        raise SettingError(f"the secret {wish.name} cannot be read: {error}", hint="see docs/secrets.md") from None
    if not value.strip():
        raise SettingError(f"the secret {wish.name} ({wish.file}) is empty", hint="see docs/secrets.md")
    return "v" + hashlib.sha256(wish.name.encode() + b"\0" + value).hexdigest()[:8]


class Service(ABC):
    """A service of the host, and the way it is deployed."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """Take the wishes of `settings` to `engine`."""
        self.settings = settings
        self.engine = engine
        self.versions = {wish.name: secret_version(wish) for wish in settings.secrets}
        self.env = dict(settings.app_env) | {wish.variable: self.versions[wish.name] for wish in settings.secrets}

    @property
    def secret_names(self) -> dict[str, SecretWish]:
        """The Docker name of each secret."""
        return {f"{self.settings.stack}_{wish.name}_{self.versions[wish.name]}": wish for wish in self.settings.secrets}

    def create_secrets(self) -> None:
        """Create the secrets that are not there."""
        there = self.engine.secret_names(f"{self.settings.stack}_")
        for name, wish in self.secret_names.items():
            if name not in there:
                say(self.settings, f"creating the secret {name}")
                self.create_secret(wish)

    def remove_old_secrets(self) -> None:
        """Remove earlier values of our secrets; what is still in use waits for the next run."""
        wanted = self.secret_names
        for name in sorted(self.engine.secret_names(f"{self.settings.stack}_") - set(wanted)):
            ours = any(name.startswith(f"{self.settings.stack}_{wish.name}_v") for wish in self.settings.secrets)
            if ours and self.engine.remove_secret(name):
                say(self.settings, f"removed the secret {name}, which has a newer value")

    @abstractmethod
    def wished(self) -> str:
        """Return a fingerprint of everything that was asked for."""

    @abstractmethod
    def create_secret(self, wish: SecretWish) -> None:
        """Create one secret."""

    @abstractmethod
    def missing(self) -> str:
        """Return what is missing besides services and secrets, in words; empty where nothing is."""

    @abstractmethod
    def deploy(self) -> None:
        """Submit the stack."""


class AppService(Service):
    """A Co-op Cloud recipe, through abra."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """Take the wishes of `settings` to `engine`."""
        super().__init__(settings, engine)
        if not settings.recipe:
            raise SettingError("RECONCILE_RECIPE is not set", hint="`app` needs the name of a recipe")
        self.abra = Abra()
        self.env_file = self.abra.env_file(settings.domain)

    def wished(self) -> str:
        """Recipe, version and our keys of the `.env`; the other keys are the recipe's own."""
        return fingerprint([self.settings.recipe, self.settings.version, self.env, sorted(self.secret_names)])

    def create_secret(self, wish: SecretWish) -> None:
        """Insert it with abra."""
        self.abra.secret_insert(self.settings.domain, wish.name, self.versions[wish.name], wish.file)

    def missing(self) -> str:
        """The `.env` may be gone or edited."""
        if not self.env_file.is_file():
            return f"{self.env_file} is not there"
        text = self.env_file.read_text(encoding="utf-8")
        return "" if merged(text, self.env) == text else f"{self.env_file} says something else"

    def deploy(self) -> None:
        """Make the `.env`, the secrets and the stack."""
        self.abra.server_add_local()
        if not self.env_file.is_file():
            self.abra.app_new(self.settings.domain, self.settings.recipe, self.settings.version)
        text = self.env_file.read_text(encoding="utf-8")
        fresh = self.env_file.with_suffix(".env.new")
        fresh.write_text(merged(text, self.env), encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(self.env_file)
        self.create_secrets()
        deployed = bool(self.engine.services(self.settings.stack))
        self.abra.app_deploy(self.settings.domain, self.settings.version, force=deployed, timeout=self.settings.timeout)


class StackService(Service):
    """A compose file of ours, with an image that comes from a file."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """Take the wishes of `settings` to `engine`."""
        super().__init__(settings, engine)
        if settings.compose is None or not settings.image:
            raise SettingError("RECONCILE_COMPOSE or RECONCILE_IMAGE is not set", hint="`stack` needs both")
        self.compose: Path = settings.compose
        self.env |= {"STACK_NAME": settings.stack, "DOMAIN": settings.domain}

    def wished(self) -> str:
        """The compose file with all that goes into it."""
        return fingerprint([self.compose.read_text(encoding="utf-8"), self.settings.image, self.env])

    def create_secret(self, wish: SecretWish) -> None:
        """Create it from its file."""
        name = f"{self.settings.stack}_{wish.name}_{self.versions[wish.name]}"
        self.engine.create_secret(name, wish.file.read_bytes().strip())

    def missing(self) -> str:
        """The image may be gone."""
        return "" if self.engine.has_image(self.settings.image) else f"the image {self.settings.image} is not there"

    def deploy(self) -> None:
        """Load the image, then make the secrets and the stack."""
        if self.missing():
            if self.settings.image_archive is None:
                raise EngineStateError(
                    f"the image {self.settings.image} is not there, and no file holds it",
                    hint="set RECONCILE_IMAGE_ARCHIVE, or build the image",
                )
            self.engine.load(self.settings.image_archive, self.settings.image)
        self.create_secrets()
        self.engine.deploy_stack(self.compose, self.settings.stack, self.env)


def reconcile(settings: Settings, kind: type[Service]) -> Record:
    """Bring a service to what is wished, and record how that went.

    Raises:
        ReconcileError: It could not be done; the reason is in the record as well, for the next in the chain.
    """
    with one_at_a_time(settings.state_dir, lambda text: say(settings, text)):
        try:
            record = _reconcile(settings, kind)
        except ReconcileError as error:
            before = read_record(settings.state_dir, settings.name) or Record(Outcome.FAILED)
            failed = Record(Outcome.FAILED, reason=error.reason, stack=before.stack)
            write_record(settings.state_dir, settings.name, failed)
            raise
        write_record(settings.state_dir, settings.name, record)
    say(settings, "converged" if record.changed else "as wished, nothing changed")
    return record


def _reconcile(settings: Settings, kind: type[Service]) -> Record:
    engine = Engine()
    _check_predecessor(settings, engine)
    network = engine.network(settings.network)
    if network is None:
        raise EngineStateError(
            f"there is no network {settings.network}", hint="`systemctl start coopcloud-ci-swarm` makes it"
        )
    service = kind(settings, engine)
    before = read_record(settings.state_dir, settings.name)
    drift = _drift(service, before, str(network["Id"]))
    if drift:
        say(settings, f"deploying: {drift}")
        old = frozenset(task["ID"] for one in engine.services(settings.stack) for task in engine.tasks(one))
        service.deploy()
        engine.reset_images(settings.stack)
    else:
        old = frozenset()
    wait_converged(engine, settings.stack, timeout=settings.timeout, old=old)
    if settings.probe:
        wait_answers(settings.probe, settings.probe_address, settings.probe_certificate, timeout=settings.timeout)
    service.remove_old_secrets()
    return Record(
        Outcome.CONVERGED,
        wished=service.wished(),
        stack=settings.stack,
        network=str(network["Id"]),
        services={one.name: one.spec for one in engine.services(settings.stack)},
        changed=bool(drift),
    )


def _drift(service: Service, before: Record | None, network: str) -> str:
    """Return what differs from the wishes, in words; empty where nothing does."""
    if before is None or before.outcome is not Outcome.CONVERGED:
        return "the last run did not end well" if before else "first run"
    if before.wished != service.wished():
        return "the configuration or a secret has changed"
    missing = service.missing()
    if missing:
        return missing
    engine = service.engine
    gone = set(service.secret_names) - engine.secret_names(f"{service.settings.stack}_")
    if gone:
        return f"the secret {min(gone)} is gone"
    there = {one.name: one for one in engine.services(service.settings.stack)}
    if before.network != network:
        return f"the network {service.settings.network} is another one"
    for name, spec in sorted(before.services.items()):
        if name not in there:
            return f"the service {name} is gone"
        if there[name].spec != spec:
            return f"the service {name} was changed by hand"
    return ""


def _check_predecessor(settings: Settings, engine: Engine) -> None:
    if not settings.after:
        return
    record = read_record(settings.state_dir, settings.after)
    hint = f"`systemctl start coopcloud-ci-{settings.after}`, then this one again"
    if record is None:
        raise PredecessorError(f"{settings.after} comes first and has never run", hint=hint)
    if record.outcome is Outcome.FAILED:
        raise PredecessorError(f"{settings.after} comes first and has failed: {record.reason}", hint=hint)
    if record.stack:
        state = state_of(engine, record.stack)
        wrong = state.hopeless or "; ".join(state.missing)
        if wrong:
            raise PredecessorError(f"{settings.after} comes first and is not well: {wrong}", hint=hint)
