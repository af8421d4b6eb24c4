"""The deployer that drives abra, as maintainers and the CI host deploy.

abra's word is never taken for it: what it says it did is looked up in Docker, convergence is waited for by ourselves, a
backup is judged by what is in it. What it creates carries none of our labels; it stands in the ledger before the call, has
the stack's name, and a labelled config `<stack>_run` tells others that the stack belongs to a run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pytest_coopcloud.abra import Abra, environment_timeout
from pytest_coopcloud.backupbot import BackupBot, asked_of_the_bot, was_asked
from pytest_coopcloud.deployers.abra_home import OVERLAY_FILE, SERVER, AbraHome
from pytest_coopcloud.deployers.preparation import (
    given_env,
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
from pytest_coopcloud.errors import AppError, BadRecipeError, CLIError, CoopCloudError, WaitError
from pytest_coopcloud.inventory import STACK_LABEL, Kind, Thing, owned, run_labels
from pytest_coopcloud.recipes import RenderedRecipe, SecretSpec, Version
from pytest_coopcloud.results import CauseClass
from pytest_coopcloud.teardown import take_down
from pytest_coopcloud.wait import wait

__all__ = ["AbraDeployer", "make"]

#: Seconds after `app undeploy` within which the services must be gone.
UNDEPLOY_TIMEOUT = 30.0
#: A shorter text in the answer of `secret generate` is no value.
SHORTEST_VALUE = 8

_SNAPSHOT = re.compile(r"snapshot(?:_id)?[\"'=:\s]+([0-9a-f]{8,64})\b")


def make(site: Site) -> AbraDeployer:
    """Make the deployer."""
    return AbraDeployer(site)


class AbraDeployer:
    """Deploys with abra; backs up with abra and the backup-bot-two that runs on the server."""

    name = "abra"

    def __init__(self, site: Site) -> None:
        self.site = site
        self.home = AbraHome(site.folder / "abra", site.recipe, site.repository, site.name.domain)
        self.abra = Abra(
            self.home.folder,
            host=site.docker.host,
            log=site.log,
            redact=site.redactor.clean,
            timeout=environment_timeout(),
        )
        self._rendered: RenderedRecipe | None = None
        self._live: Release | None = None
        self._chaos = False
        self._remarks: list[str] = []

    @property
    def version(self) -> str:
        """What abra says of itself."""
        return f"abra {self.abra.version}"

    # The five

    def prepare(self, release: Release, env: Mapping[str, str]) -> str:
        """Check a release and pull its images."""
        rendered = render(self.site, release, env)
        pull_images(self.site, rendered)
        return rendered.version_label

    def deploy(self, release: Release, env: Mapping[str, str]) -> Deployment:
        """Make a new app and deploy a release."""
        rendered = render(self.site, release, env)
        self._clear()
        self._mark()
        own(self.site, rendered, (key for key, spec in self._networks(rendered).items() if not spec.get("external")))
        self.home.lay(release)
        version = release.version if release.published else ""
        self.abra.app_new(
            self.site.recipe, version, server=SERVER, domain=self.home.domain, chaos=not release.published
        )
        if not self.home.env_file.is_file():
            raise CLIError(
                ["abra", "app", "new"],
                0,
                "",
                "",
                message=f"`abra app new` ended with 0, and made no {self.home.env_file}",
                hint="see commands.log",
            )
        return self._submit(release, rendered, env)

    def upgrade(self, release: Release, env: Mapping[str, str]) -> Deployment:
        """Move the app to another release, in place."""
        return self._submit(release, render(self.site, release, env), env)

    def adopt(self, release: Release) -> Deployment:
        """Go on with what is deployed."""
        rendered = render(self.site, release, {})
        self._rendered, self._live, self._chaos = rendered, release, not release.published
        return self._deployment(release, rendered, {}, "")

    def backup(self) -> Archive:
        """Have backup-bot-two back the app up, and look into its archive."""
        rendered = self._deployed()
        if rendered.backup is None:
            raise BadRecipeError("the recipe has no backup labels", hint="see `backupbot.backup` in the handbook")
        bot = BackupBot.find(self.site.docker)
        with self._asking(bot):
            said = self.abra.app_backup_create(self.home.domain)
        found = _SNAPSHOT.findall(said) or bot.snapshots(self.site.name)
        if not found:
            raise AppError(
                "abra says that it backed the app up, and there is no snapshot of it",
                hint="see commands.log, and the log of backup-bot-two",
                cause=CauseClass.INFRASTRUCTURE,
            )
        _, _, wanted = selection(rendered)
        return Archive(id=found[-1], paths=bot.listing(found[-1]), wanted=tuple(wanted))

    def restore(self, archive: Archive) -> None:
        """Have backup-bot-two restore a snapshot into the app."""
        with self._asking(BackupBot.find(self.site.docker)):
            self.abra.app_restore(self.home.domain, snapshot=archive.id)

    @contextlib.contextmanager
    def _asking(self, bot: BackupBot) -> Iterator[None]:
        """Have the bot end its work where this block ends badly: it would go on without abra."""
        self.site.ledger.own([asked_of_the_bot(self.site.name)])
        try:
            yield
        except BaseException:
            bot.stop(self.site.name)
            raise

    def undeploy(self, *, keep_secrets: bool = False) -> None:
        """Undeploy the app, remove its data and its `.env`; what abra leaves of it is removed after it."""
        site = self.site
        try:
            if self._services():
                self.abra.app_undeploy(self.home.domain)
                self._until_undeployed()
            # Nobody waits for a container whose data is thrown away, and none may hold a volume below.
            take_down(site.docker, site.name, spare=self._stays(Kind.VOLUME, Kind.SECRET, Kind.CONFIG))
            if owned(site.docker, site.name, [Kind.VOLUME]):
                self._tolerate(lambda: self.abra.app_volume_rm(self.home.domain))
            if not keep_secrets and owned(site.docker, site.name, [Kind.SECRET]):
                self._tolerate(lambda: self.abra.app_secret_rm(self.home.domain))
        finally:
            self._clear(keep_secrets=keep_secrets)

    def discard(self) -> None:
        """Have the trial's snapshots forgotten: the repository is the server's own."""
        name = self.site.name
        if was_asked(self.site.ledger.owned, name):
            BackupBot.find(self.site.docker).forget(name)

    # Deploying

    def _submit(self, release: Release, rendered: RenderedRecipe, env: Mapping[str, str]) -> Deployment:
        overlay, note = self._overlay(release, rendered)
        values = given_env(self.site, env)
        kind = self.site.recipe if overlay or not release.published else self.home.written_type()
        if overlay:
            values["COMPOSE_FILE"] = ":".join([*rendered.files, OVERLAY_FILE])
        self.home.write_env(release, kind, values)
        self._make_secrets(release, rendered, overlay)
        # abra may have moved it since.
        self.home.lay(release, overlay)
        self._run_deploy(release, chaos=bool(overlay) or not release.published)
        self._check_deployed(release, rendered)
        self._rendered, self._live, self._chaos = rendered, release, bool(overlay) or not release.published
        return self._deployment(release, rendered, env, note)

    def _run_deploy(self, release: Release, *, chaos: bool) -> None:
        domain, live = self.home.domain, self._live
        if chaos:
            self.abra.app_deploy(domain)
        elif live is None:
            self.abra.app_deploy(domain, version=release.version)
        elif not live.published or self._chaos:
            # abra upgrades from published versions only.
            self.abra.app_deploy(domain, version=release.version, force=True)
        elif Version.parse(release.version) < Version.parse(live.version):
            self.abra.app_rollback(domain, release.version)
        else:
            self.abra.app_upgrade(domain, release.version)

    def _overlay(self, release: Release, rendered: RenderedRecipe) -> tuple[str, str]:
        """Return the text of our compose file, empty where none is needed or allowed; and what the result should say."""
        direct = names_lead_to_tasks(self.site, rendered)
        services: dict[str, dict[str, Any]] = {}
        for name, definition in rendered.services.items():
            image = (self.site.docker.image(str(definition["image"])) or {}).get("Config") or {}
            changed: dict[str, Any] = {}
            health = fast_health(definition.get("healthcheck"), image.get("Healthcheck"))
            if health is not None:
                # What is not said here stays as the recipe says it: compose files are merged key by key.
                changed["healthcheck"] = {"interval": health["interval"], "retries": health["retries"]}
            deploy: dict[str, Any] = {}
            declared = (definition.get("deploy") or {}).get("update_config") or {}
            monitor = fast_update(declared).get("monitor")
            if monitor != declared.get("monitor"):
                deploy["update_config"] = {"monitor": monitor}
            if direct:
                deploy["endpoint_mode"] = "dnsrr"
            if deploy:
                changed["deploy"] = deploy
            if changed:
                services[name] = changed
        if not services:
            return "", ""
        if release.published and not direct:
            return "", (
                f"version {release.version} was deployed by abra untouched, as it is published: its health checks ran "
                "at the recipe's own interval"
            )
        note = ""
        if release.published:
            note = (
                f"version {release.version} was deployed by abra from its checkout (`--chaos`) with an overlay, and not "
                "untouched: virtual IPs do not route on this engine"
            )
        version = rendered.compose.get("version")
        model = {**({"version": str(version)} if version is not None else {}), "services": services}
        return yaml.safe_dump(model, sort_keys=False), note

    def _deployment(self, release: Release, rendered: RenderedRecipe, env: Mapping[str, str], note: str) -> Deployment:
        remarks, self._remarks = self._remarks, []
        return Deployment(
            release=release,
            timeout=rendered.timeout_label,
            mounts=tuple(selected_mounts(rendered)),
            backed_up=rendered.backup is not None,
            env=dict(env),
            note="; ".join([*([note] if note else []), *remarks]),
        )

    def _check_deployed(self, release: Release, rendered: RenderedRecipe) -> None:
        """Make sure that what Swarm was told is this release: abra may end with 0 and have deployed something else.

        Raises:
            CoopCloudError: It is not.
        """
        services = self._services()
        if not services:
            raise CoopCloudError("`abra app deploy` ended with 0, and deployed no service", hint="see commands.log")
        for name, definition in rendered.services.items():
            wanted = _tagged(str(definition["image"]))
            spec = services.get(name)
            runs = _tagged(str(spec["TaskTemplate"]["ContainerSpec"]["Image"])) if spec else "nothing"
            if runs != wanted:
                raise CoopCloudError(
                    f"abra deployed something else than {release.version}: service {name} is {runs}, not {wanted}",
                    hint="did it move the recipe's checkout? see commands.log",
                )
        labels = (services.get("app") or {}).get("Labels") or {}
        commit = str(labels.get(f"coop-cloud.{self.site.name.stack}.chaos-version") or "").partition("+")[0]
        told = not release.published and release.ref and re.fullmatch(r"[0-9a-f]{7,64}", commit)
        if told and not release.ref.startswith(commit):
            raise CoopCloudError(f"abra deployed commit {commit}, and {release.ref} is under test")

    def _services(self) -> dict[str, dict[str, Any]]:
        """Return what Swarm was told of each service of the stack, by its name in the recipe."""
        found = self.site.docker.services(label=f"{STACK_LABEL}={self.site.name.stack}")
        return {raw["Spec"]["Name"].removeprefix(self.site.name.prefix): raw["Spec"] for raw in found}

    def _deployed(self) -> RenderedRecipe:
        if self._rendered is None:
            raise AppError("no app is deployed")
        return self._rendered

    @staticmethod
    def _networks(rendered: RenderedRecipe) -> dict[str, dict[str, Any]]:
        return {key: spec or {} for key, spec in (rendered.compose.get("networks") or {}).items()}

    # Secrets

    def _make_secrets(self, release: Release, rendered: RenderedRecipe, overlay: str) -> None:
        site = self.site
        missing = missing_secrets(site, rendered)
        if not missing:
            return
        site.ledger.own(f"secret {spec.docker_name}" for spec in missing)
        given = [spec for spec in missing if spec.name in site.secrets]
        for spec in given:
            self._insert(spec, site.secrets[spec.name])
        invented = [spec for spec in missing if spec not in given]
        if invented:
            # abra reads which secrets there are in the checkout.
            self.home.lay(release, overlay)
            self._generate(rendered, invented)
        for spec in missing_secrets(site, rendered):
            self._insert(spec, make_secret(spec))
            self._remarks.append(f"abra generated no secret {spec.name}, so one was inserted")

    def _generate(self, rendered: RenderedRecipe, invented: list[SecretSpec]) -> None:
        domain = self.home.domain
        if len(invented) == len(rendered.secrets):
            texts = self.abra.app_secret_generate(domain)
        else:
            texts = [
                text for spec in invented for text in self.abra.app_secret_generate(domain, spec.name, spec.version)
            ]
        names = {part for spec in rendered.secrets for part in (spec.name, spec.docker_name, spec.version)}
        names |= {domain, self.site.name.stack, self.site.recipe, SERVER}
        for text in texts:
            if len(text) >= SHORTEST_VALUE and text not in names:
                self.site.redactor.add(text, "generated by abra")

    def _insert(self, spec: SecretSpec, value: str) -> None:
        self.site.redactor.add(value, spec.name)
        # Through a file: what stands in arguments is seen by everybody on the machine.
        file = Path(self.home.folder / "secret")
        file.touch(mode=0o600)
        try:
            file.write_text(value, encoding="utf-8")
            self.abra.app_secret_insert(self.home.domain, spec.name, spec.version, file)
        finally:
            file.unlink()

    # Removing

    def _mark(self) -> None:
        """Create the labelled config that tells others whose the stack is."""
        docker, name = self.site.docker, self._mark_name
        if docker.configs(name=name):
            return
        self.site.ledger.own([f"config {name}"])
        docker.create_config(name, self.site.name.run_id, run_labels(self.site.name.run_id, self.site.state))

    @property
    def _mark_name(self) -> str:
        return f"{self.site.name.prefix}run"

    def _stays(self, *kinds: Kind) -> Any:
        def stays(thing: Thing) -> bool:
            return thing.kind in kinds or thing.name == self._mark_name

        return stays

    def _clear(self, *, keep_secrets: bool = True) -> None:
        """Remove what is there of the app, also of one whose deployment failed half way."""
        site = self.site
        self._rendered = self._live = None
        self._chaos = False
        self.home.remove_env()
        stays = self._stays(*([Kind.SECRET] if keep_secrets else []))
        if any(not stays(thing) for thing in owned(site.docker, site.name).things):
            take_down(site.docker, site.name, spare=stays)

    def _until_undeployed(self) -> None:
        try:
            wait(
                self.site.docker,
                self.site.name.stack,
                lambda state: not state.services,
                timeout=UNDEPLOY_TIMEOUT,
                failed=lambda state: "",  # whatever becomes of them, they must go
            )
        except WaitError as error:
            raise CoopCloudError(
                f"`abra app undeploy` ended with 0, and {UNDEPLOY_TIMEOUT:g} s later there are still the services "
                f"{', '.join(sorted(self._services()))}",
                hint="see commands.log; they were removed without abra",
            ) from error

    def _tolerate(self, call: Any) -> None:
        """Do what is done after abra anyway; where it failed, the result says so."""
        try:
            call()
        except CLIError as error:
            self._remarks.append(f"removed without abra, since {error.message}")


def _tagged(image: str) -> str:
    """Return an image's name with its tag and without its digest."""
    name = image.partition("@")[0]
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
