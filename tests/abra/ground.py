"""A run of the deployer by itself: no pytest, no proxy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytest_coopcloud.deployers import get_deployer
from pytest_coopcloud.deployers.abra import AbraDeployer
from pytest_coopcloud.deployers.protocol import Release, Site
from pytest_coopcloud.docker import Docker
from pytest_coopcloud.inventory import owned
from pytest_coopcloud.ledger import Ledger, Lock
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.policy import Allow
from pytest_coopcloud.redaction import Redactor
from pytest_coopcloud.sources import Source, SourceSpec, fetch
from pytest_coopcloud.teardown import take_down
from pytest_coopcloud.wait import all_converged, wait


@dataclass
class Ground:
    """A deployer, its recipe and its engine."""

    deployer: AbraDeployer
    source: Source
    folder: Path
    lock: Lock

    @classmethod
    def make(
        cls, docker: Docker, folder: Path, recipe: Path, *, ref: str = "", secrets: dict[str, str] | None = None
    ) -> Ground:
        """Begin a run of the recipe below `folder`, with the abra that is on PATH."""
        state = folder / "state"
        name = RunName.new(recipe.name, base_domain="ci.localhost")
        ledger, lock = Ledger.open(state, name, recipe.name)
        source = fetch(
            SourceSpec.parse(str(recipe), ref=ref), mirrors=state / "mirrors", workdir=ledger.folder / "recipe"
        )
        site = Site(
            docker=docker,
            name=name,
            recipe=recipe.name,
            folder=ledger.folder,
            state=state,
            ledger=ledger,
            redactor=Redactor(),
            env={},
            allow=Allow(),
            progress=lambda text: None,
            log=ledger.folder / "commands.log",
            secrets=secrets or {},
            repository=source.repository,
        )
        deployer = get_deployer("abra", site)
        assert isinstance(deployer, AbraDeployer)
        return cls(deployer, source, folder, lock)

    def end(self) -> None:
        """Take everything down, and prove it."""
        take_down(self.docker, self.name)
        self.lock.close()
        assert self.left() == []

    @property
    def docker(self) -> Docker:
        return self.deployer.site.docker

    @property
    def name(self) -> RunName:
        return self.deployer.site.name

    @property
    def head(self) -> Release:
        return Release(version="1.1.0+1.1.0", path=self.source.path, ref=self.source.ref, published=False)

    def published(self, version: str = "1.0.0+1.0.0") -> Release:
        path = self.folder / "versions" / version
        if not path.exists():
            found = next(one for one in self.source.versions if str(one) == version)
            self.source.checkout_version(found, path)
        return Release(version=version, path=path, ref="", published=True)

    def labels(self) -> dict[str, str]:
        (service,) = self.docker.services(name=f"{self.name.prefix}app")
        prefix = f"coop-cloud.{self.name.stack}."
        labels = service["Spec"]["Labels"]
        return {key.removeprefix(prefix): value for key, value in labels.items() if key.startswith(prefix)}

    def container(self) -> str:
        label = f"com.docker.swarm.service.name={self.name.prefix}app"
        running = self.docker.containers(label=label, status="running")
        return str(max(running, key=lambda raw: raw["Created"])["Id"])

    def converge(self) -> None:
        wait(self.docker, self.name.stack, all_converged, timeout=120)

    def left(self) -> list[str]:
        return sorted(str(thing) for thing in owned(self.docker, self.name).things)

    def calls(self) -> list[list[str]]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [call for call in map(json.loads, lines) if "--help" not in call and call != ["--version"]]

    def verbs(self) -> list[str]:
        known = ("app secret generate", "app secret insert", "app secret rm", "app volume rm")
        joined = [" ".join(call) for call in self.calls()]
        return [next((verb for verb in known if call.startswith(verb)), " ".join(call.split()[:2])) for call in joined]
