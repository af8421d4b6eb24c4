"""The built-in deployer: reads the recipe format itself, and needs nothing but a Docker Engine in swarm mode."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import secrets
import string
from collections.abc import Mapping
from typing import Any

from pytest_coopcloud import policy
from pytest_coopcloud.deployers.probes import fast_health, fast_update
from pytest_coopcloud.deployers.protocol import Archive, Deployment, Mount, Release, Site
from pytest_coopcloud.errors import AppError, BadRecipeError
from pytest_coopcloud.inventory import STACK_LABEL, Kind, run_labels
from pytest_coopcloud.recipes import Recipe, RenderedRecipe, SecretSpec
from pytest_coopcloud.restic import Restic, data_path
from pytest_coopcloud.teardown import take_down
from pytest_coopcloud.tools import tool_image
from pytest_coopcloud.vips import virtual_ips_route

__all__ = ["SwarmDeployer", "make", "make_secret"]

#: A password where a recipe names a length and no characters.
ALPHABET = string.ascii_letters + string.digits
PASSPHRASE_WORDS = 6


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
        rendered = self._render(release, env)
        for image in rendered.images:
            if self.site.docker.image(image) is None:
                self.site.progress(f"pulling {image}")
                self.site.docker.pull(image, progress=self.site.progress)
        return rendered.version_label

    def deploy(self, release: Release, env: Mapping[str, str]) -> Deployment:
        """Submit a release from nothing."""
        rendered = self._render(release, env)
        self._create_secrets(rendered)
        return self._submit(release, rendered, env)

    def upgrade(self, release: Release, env: Mapping[str, str]) -> Deployment:
        """Submit a release in place."""
        return self.deploy(release, env)

    def adopt(self, release: Release) -> Deployment:
        """Go on with what is deployed."""
        rendered = self._render(release, {})
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
            volumes, paths, wanted = self._selection(rendered)
            snapshot = restic.backup(volumes, paths)
        finally:
            self._hooks(spec.post_hooks, "backup post-hook")
        return Archive(id=snapshot, paths=restic.listing(snapshot), wanted=tuple(wanted))

    def restore(self, archive: Archive) -> None:
        """Run the restore pre-hooks, restic, and the restore post-hooks."""
        rendered = self._live()
        spec = rendered.backup
        assert spec is not None
        volumes, _, _ = self._selection(rendered)
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

    # The recipe

    def _render(self, release: Release, env: Mapping[str, str]) -> RenderedRecipe:
        name = self.site.name
        given = {
            "DOMAIN": name.domain,
            "STACK_NAME": name.stack,
            # Empty: no certificate resolver, the proxy serves the certificate it has.
            "LETS_ENCRYPT_ENV": "",
            **self.site.env,
            **env,
        }
        rendered = Recipe.read(release.path, self.site.recipe).render(given)
        policy.enforce(
            rendered,
            name=name,
            checkout=release.path,
            allow=self.site.allow,
            extra_domains=self.site.extra_domains,
        )
        return rendered

    def _live(self) -> RenderedRecipe:
        if self._rendered is None:
            raise AppError("no app is deployed")
        return self._rendered

    def _create_secrets(self, rendered: RenderedRecipe) -> None:
        docker, ledger = self.site.docker, self.site.ledger
        present = {raw["Spec"]["Name"] for raw in docker.secrets(name=self.site.name.prefix)}
        missing = [spec for spec in rendered.secrets if spec.docker_name not in present]
        refused = [spec.name for spec in missing if not spec.generate and spec.name not in self.site.secrets]
        if refused:
            raise BadRecipeError(
                f"the recipe wants secrets that are not generated: {', '.join(refused)}",
                hint="give their values as `secrets={...}` in the enrolment's RecipeMeta",
            )
        ledger.own(f"secret {spec.docker_name}" for spec in missing)
        for spec in missing:
            value = self.site.secrets.get(spec.name) or make_secret(spec)
            self.site.redactor.add(value, spec.name)
            docker.create_secret(spec.docker_name, value, self._labels)

    # The stack

    def _submit(self, release: Release, rendered: RenderedRecipe, env: Mapping[str, str]) -> Deployment:
        model = self._model(release, rendered)
        site = self.site
        site.ledger.own(
            [
                *(f"service {site.name.prefix}{service}" for service in rendered.services),
                *(f"config {config.docker_name}" for config in rendered.configs),
                *(f"volume {volume}" for volume in rendered.volumes.values()),
                *(f"network {site.name.prefix}{network}" for network in model.get("networks") or {}),
            ]
        )
        site.docker.stack_deploy(site.name.stack, json.dumps(model), log=site.log, redact=site.redactor.clean)
        self._rendered = rendered
        return self._deployment(release, rendered, env)

    def _deployment(self, release: Release, rendered: RenderedRecipe, env: Mapping[str, str]) -> Deployment:
        return Deployment(
            release=release,
            timeout=rendered.timeout_label,
            mounts=tuple(self._mounts(rendered)),
            backed_up=rendered.backup is not None,
            env=dict(env),
        )

    def _model(self, release: Release, rendered: RenderedRecipe) -> dict[str, Any]:
        """Return the compose model as it is submitted: the recipe's, labelled, probed every second."""
        model = copy.deepcopy(rendered.compose)
        model.setdefault("version", "3.8")
        names = self.site.name
        direct = len(model["services"]) > 1 and not self._virtual_ips_route()
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
        escaped: dict[str, Any] = _escape(model)
        for config in rendered.configs:
            if config.path is not None:
                escaped["configs"][config.key]["file"] = str(config.path)
        return escaped

    def _virtual_ips_route(self) -> bool:
        site = self.site
        image = tool_image(site.docker, "traefik", site.tool_images.get("traefik", ""), progress=site.progress)
        site.ledger.own([f"service {site.name.run_id}-vip", f"network {site.name.run_id}-vip"])
        return virtual_ips_route(site.docker, site.name, site.state, image)

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

    def _mounts(self, rendered: RenderedRecipe) -> list[Mount]:
        """Return the named volumes that are backed up, each where the first service has it."""
        found: dict[str, Mount] = {}
        for volume, paths in self._volumes(rendered).items():
            for service, target in rendered.mounts_of(volume):
                docker_name = rendered.volumes[volume]
                found.setdefault(docker_name, Mount(service=service, path=target, volume=docker_name, whole=not paths))
        return list(found.values())

    def _volumes(self, rendered: RenderedRecipe) -> dict[str, tuple[str, ...]]:
        """Return each volume that is backed up, by its key, with the paths in it; no paths means all of it."""
        return dict(rendered.backup.volumes) if rendered.backup is not None else {}

    def _selection(self, rendered: RenderedRecipe) -> tuple[list[str], list[str], list[str]]:
        """Return the volumes to mount, the paths to back up, and those of them that the labels name."""
        volumes, paths, wanted = [], [], []
        for key, inside in self._volumes(rendered).items():
            name = rendered.volumes[key]
            volumes.append(name)
            named = [f"{data_path(name)}/{path.strip('/')}" for path in inside]
            paths += named or [data_path(name)]
            wanted += named
        return volumes, paths, wanted

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


def _escape(value: Any) -> Any:
    """Return a model whose text means itself to a reader that interpolates: `$` as `$$`."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escape(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(entry) for entry in value]
    return value


def make_secret(spec: SecretSpec) -> str:
    """Make the value of a secret by the recipe's rules: random characters of a length, else a passphrase of words."""
    if spec.length:
        characters = spec.charset or ALPHABET
        return "".join(secrets.choice(characters) for _ in range(spec.length))
    return "-".join(_word() for _ in range(PASSPHRASE_WORDS))


def _word() -> str:
    """Make a word that can be read aloud."""
    return "".join(secrets.choice("bdfgklmnprstvz") + secrets.choice("aeiou") for _ in range(3))
