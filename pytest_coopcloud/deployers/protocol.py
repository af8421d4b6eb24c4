"""What a deployer can do: prepare and five things more, and nobody outside knows which deployer does them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.ledger import Ledger
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.policy import Allow
from pytest_coopcloud.redaction import Redactor

__all__ = ["Archive", "Deployer", "Deployment", "Mount", "Release", "Site"]


@dataclass(frozen=True)
class Release:
    """A state of the recipe that can be deployed.

    Attributes:
        version: What it calls itself, for example `2.0.0+15.1`.
        path: Its checkout.
        ref: Its commit; empty outside git.
        published: Whether it is a published version, deployed as it is.
    """

    version: str
    path: Path
    ref: str
    published: bool


@dataclass(frozen=True)
class Mount:
    """A named volume, where a service has it.

    Attributes:
        service: A service that mounts it.
        path: Where, inside the container.
        volume: Docker's name of the volume.
        backed_up: Whether a backup takes it, or something in it.
        whole: Whether all of it is backed up, and not only some paths in it.
    """

    service: str
    path: str
    volume: str
    backed_up: bool
    whole: bool


@dataclass(frozen=True)
class Deployment:
    """What has been submitted.

    Attributes:
        release: Which release.
        timeout: Seconds that the recipe gives it to converge.
        mounts: Its named volumes.
        backed_up: Whether the recipe has backup labels.
        env: Keys of the `.env` that were given for this deployment alone.
        note: What the result should say about how it was deployed; empty where nothing.
    """

    release: Release
    timeout: float
    mounts: tuple[Mount, ...] = ()
    backed_up: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Archive:
    """A backup that was made.

    Attributes:
        id: What finds it again.
        paths: Every file in it, with its size in bytes (folders: 0).
        wanted: The paths that the recipe's labels name, as they must appear in `paths`.
    """

    id: str
    paths: Mapping[str, int]
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """Where a deployer works, and what it may use.

    Attributes:
        docker: The engine.
        name: The names of the run.
        recipe: The recipe's name.
        folder: The run's folder (`runs/<run id>`).
        state: The state directory.
        ledger: Where it writes down what it is about to create.
        redactor: Where it registers each secret that it makes.
        env: Keys of the `.env` beyond those of `.env.sample`.
        allow: What the recipe may ask of the host.
        progress: Called with a line while something takes long.
        log: The file that commands and their output are appended to.
        secrets: Values of secrets that are not generated, by name.
        extra_domains: More hosts that the recipe's routers may name.
        tool_images: An image for a tool, where the user names one.
        repository: The git folder that the recipe's commits and tags are in; None outside git.
    """

    docker: Docker
    name: RunName
    recipe: str
    folder: Path
    state: Path
    ledger: Ledger
    redactor: Redactor
    env: Mapping[str, str]
    allow: Allow
    progress: Callable[[str], None]
    log: Path
    secrets: Mapping[str, str] = field(default_factory=dict)
    extra_domains: tuple[str, ...] = ()
    tool_images: Mapping[str, str] = field(default_factory=dict)
    repository: Path | None = None


class Deployer(Protocol):
    """Deploys one recipe under one run's name. At most one app of it is there at a time."""

    #: The value of `--deployer`.
    name: str

    @property
    def version(self) -> str:
        """What the deployer says of itself."""

    def prepare(self, release: Release, env: Mapping[str, str]) -> str:
        """Check a release and have its images here, before anything is created; return the version it names.

        Raises:
            BadInputError: The recipe cannot be read, or asks for too much of the host.
            ImageError: An image cannot be had.
        """

    def deploy(self, release: Release, env: Mapping[str, str]) -> Deployment:
        """Submit a release from nothing, and return without waiting for it.

        Raises:
            BadInputError: The recipe cannot be read or asks for too much; nothing was created.
            CoopCloudError: It could not be submitted.
        """

    def upgrade(self, release: Release, env: Mapping[str, str]) -> Deployment:
        """Submit a release in place of the one that runs; its data stays."""

    def backup(self) -> Archive:
        """Back the app up, with the hooks that its labels name, and list what is in the archive.

        Raises:
            CoopCloudError: A hook or the backup failed.
        """

    def restore(self, archive: Archive) -> None:
        """Restore the archive into the app that runs, with the hooks that its labels name."""

    def adopt(self, release: Release) -> Deployment:
        """Go on with an app of this run that is deployed already, as this release."""

    def undeploy(self, *, keep_secrets: bool = False) -> None:
        """Remove the app with its data, and wait until it is gone. The archives stay."""

    def discard(self) -> None:
        """Let go of the archives that do not lie in a volume of the run, at its end."""
