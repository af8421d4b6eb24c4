"""The built-in deployer: reads the recipe format itself, and needs nothing but a Docker Engine in swarm mode."""

from __future__ import annotations

import copy
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from pytest_coopcloud.deployers.preparation import (
    escape,
    make_secret,
    missing_secrets,
    names_lead_to_tasks,
    own,
    pull_images,
    render,
)
from pytest_coopcloud.deployers.probes import fast_health, fast_update
from pytest_coopcloud.deployers.protocol import Archive, Deployment, Release, Site
from pytest_coopcloud.deployers.selection import selected_mounts, selection
from pytest_coopcloud.errors import AppError, BadRecipeError
from pytest_coopcloud.inventory import STACK_LABEL, Kind, run_labels
from pytest_coopcloud.recipes import RenderedRecipe
from pytest_coopcloud.restic import Restic
from pytest_coopcloud.teardown import take_down
from pytest_coopcloud.tools import tool_image

__all__ = ["SwarmDeployer", "make"]


def make(site: Site) -> SwarmDeployer:
    """Make the deployer."""
    return SwarmDeployer(site)


class SwarmDeployer:
    """Deploys with `docker stack deploy`, backs up with restic."""

    name = "swarm"

    def __init__(self, site: Site) -> None:
        self.site = site
        self._labels = run_labels(site.name.run_id, site.state)
        self._rendered: RenderedRecipe | None = None
        self._restic: Restic | None = None

    @property
    def version(self) -> str:
        """The plugin's version, and the engine's."""
        engine = self.site.docker.info.get("ServerVersion", "?")
        return f"pytest-coopcloud {importlib.metadata.version('pytest-coopcloud')}, Docker {engine}"

    # The five

    def prepare(self, release: Release, env: Mapping[str, str]) -> str:
        """Check a release and pull its images."""
        rendered = render(self.site, release, env)
        pull_images(self.site, rendered)
        return rendered.version_label

    def deploy(self, release: Release, env: Mapping[str, str]) -> Deployment:
        """Submit a release from nothing."""
        rendered = render(self.site, release, env)
        self._create_secrets(rendered)
        return self._submit(release, rendered, env)

    def upgrade(self, release: Release, env: Mapping[str, str]) -> Deployment:
        """Submit a release in place."""
        return self.deploy(release, env)

    def adopt(self, release: Release) -> Deployment:
        """Go on with what is deployed."""
        rendered = render(self.site, release, {})
        self._rendered = rendered
        return self._deployment(release, rendered, {})

    def backup(self) -> Archive:
        """Run the pre-hooks, restic, and the post-hooks."""
        rendered = self._live()
        spec = rendered.backup
        if spec is None:
            raise BadRecipeError("the recipe has no backup labels", hint="see `backupbot.backup` in the handbook")
        restic = self._repository()
        self._hooks(spec.pre_hooks, "backup pre-hook")
        try:
            volumes, paths, wanted = selection(rendered)
            snapshot = restic.backup(volumes, paths)
        finally:
            self._hooks(spec.post_hooks, "backup post-hook")
        return Archive(id=snapshot, paths=restic.listing(snapshot), wanted=tuple(wanted))

    def restore(self, archive: Archive) -> None:
        """Run the restore pre-hooks, restic, and the restore post-hooks."""
        rendered = self._live()
        spec = rendered.backup
        assert spec is not None
        volumes, _, _ = selection(rendered)
        self._hooks(spec.restore_pre_hooks, "restore pre-hook")
        self._repository().restore(archive.id, volumes)
        self._hooks(spec.restore_post_hooks, "restore post-hook")

    def undeploy(self, *, keep_secrets: bool = False) -> None:
        """Remove the app with its data; the archives stay, and the secrets where they are still needed."""
        archive = self._restic.volume if self._restic else ""
        take_down(
            self.site.docker,
            self.site.name,
            spare=lambda thing: thing.name == archive or (keep_secrets and thing.kind is Kind.SECRET),
        )
        self._rendered = None

    def discard(self) -> None:
        """Do nothing: the repository is a volume of the run and goes with it."""

    # The recipe

    def _live(self) -> RenderedRecipe:
        if self._rendered is None:
            raise AppError("no app is deployed")
        return self._rendered

    def _create_secrets(self, rendered: RenderedRecipe) -> None:
        docker, ledger = self.site.docker, self.site.ledger
        missing = missing_secrets(self.site, rendered)
        ledger.own(f"secret {spec.docker_name}" for spec in missing)
        for spec in missing:
            value = self.site.secrets.get(spec.name) or make_secret(spec)
            self.site.redactor.add(value, spec.name)
            docker.create_secret(spec.docker_name, value, self._labels)

    # The stack

    def _submit(self, release: Release, rendered: RenderedRecipe, env: Mapping[str, str]) -> Deployment:
        model = self._model(release, rendered)
        site = self.site
        own(site, rendered, model.get("networks") or {})
        site.docker.stack_deploy(site.name.stack, json.dumps(model), log=site.log, redact=site.redactor.clean)
        self._rendered = rendered
        return self._deployment(release, rendered, env)

    def _deployment(self, release: Release, rendered: RenderedRecipe, env: Mapping[str, str]) -> Deployment:
        return Deployment(
            release=release,
            timeout=rendered.timeout_label,
            mounts=tuple(selected_mounts(rendered)),
            backed_up=rendered.backup is not None,
            env=dict(env),
        )

    def _model(self, release: Release, rendered: RenderedRecipe) -> dict[str, Any]:
        """Return the compose model as it is submitted: the recipe's, labelled, probed every second."""
        model = copy.deepcopy(rendered.compose)
        model.setdefault("version", "3.8")
        names = self.site.name
        direct = names_lead_to_tasks(self.site, rendered)
        for service, definition in model["services"].items():
            if service == "app":
                definition["environment"] = {**rendered.env, **(definition.get("environment") or {})}
            definition["labels"] = {**(definition.get("labels") or {}), **self._labels}
            deploy = definition.setdefault("deploy", {})
            labels = {**(deploy.get("labels") or {}), **self._labels}
            if service == "app":
                labels[f"coop-cloud.{names.stack}.recipe"] = self.site.recipe
                labels[f"coop-cloud.{names.stack}.chaos"] = "false" if release.published else "true"
                if not release.published and release.ref:
                    labels[f"coop-cloud.{names.stack}.chaos-version"] = release.ref[:8]
            deploy["labels"] = labels
            image = (self.site.docker.image(definition["image"]) or {}).get("Config") or {}
            health = fast_health(definition.get("healthcheck"), image.get("Healthcheck"))
            if health is not None:
                definition["healthcheck"] = health
            deploy["update_config"] = fast_update(deploy.get("update_config"))
            if direct:
                deploy["endpoint_mode"] = "dnsrr"
        for kind in ("volumes", "networks", "configs", "secrets"):
            for key, definition in (model.get(kind) or {}).items():
                if definition is None:
                    definition = model[kind][key] = {}
                if not definition.get("external"):
                    definition["labels"] = {**(definition.get("labels") or {}), **self._labels}
        escaped: dict[str, Any] = escape(model)
        for config in rendered.configs:
            if config.path is not None:
                escaped["configs"][config.key]["file"] = str(config.path)
        return escaped

    # Backups

    def _repository(self) -> Restic:
        if self._restic is None:
            site = self.site
            image = tool_image(site.docker, "restic", site.tool_images.get("restic", ""), progress=site.progress)
            restic = Restic(site.docker, site.name, image)
            site.ledger.own([f"volume {restic.volume}"])
            restic.create()
            self._restic = restic
        return self._restic

    def _hooks(self, hooks: Mapping[str, str], what: str) -> None:
        """Run each service's hook in its running container, as backup-bot-two does: through `sh -c`."""
        docker = self.site.docker
        for service, command in hooks.items():
            name = f"{self.site.name.prefix}{service}"
            running = docker.containers(
                label=[f"{STACK_LABEL}={self.site.name.stack}", f"com.docker.swarm.service.name={name}"],
                status="running",
            )
            if not running:
                raise AppError(f"{what} of service {service} cannot run: no container of it runs")
            newest = max(running, key=lambda raw: raw["Created"])["Id"]
            result = docker.exec(newest, ["sh", "-c", command])
            if result.exit_code != 0:
                raise AppError(
                    f"{what} of service {service} ended with {result.exit_code}: {result.output.strip()[-1000:]}"
                )
