"""What every deployer does before it creates anything: read, check, pull, ask the engine, make secrets."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_coopcloud import policy
from pytest_coopcloud.deployers.protocol import Release, Site
from pytest_coopcloud.errors import BadRecipeError
from pytest_coopcloud.recipes import Recipe, RenderedRecipe, SecretSpec
from pytest_coopcloud.tools import tool_image
from pytest_coopcloud.vips import virtual_ips_route

__all__ = [
    "escape",
    "given_env",
    "make_secret",
    "missing_secrets",
    "names_lead_to_tasks",
    "own",
    "pull_images",
    "render",
]

#: A password where a recipe names a length and no characters.
ALPHABET = string.ascii_letters + string.digits
PASSPHRASE_WORDS = 6


def given_env(site: Site, env: Mapping[str, str]) -> dict[str, str]:
    """Return the keys of the `.env` that win over those of `.env.sample`."""
    return {
        "DOMAIN": site.name.domain,
        # Empty: no certificate resolver, the proxy serves the certificate it has.
        "LETS_ENCRYPT_ENV": "",
        **site.env,
        **env,
    }


def render(site: Site, release: Release, env: Mapping[str, str]) -> RenderedRecipe:
    """Read a release and check what it asks for.

    Raises:
        BadInputError: It cannot be read, or asks for too much of the host.
    """
    given = {"STACK_NAME": site.name.stack, **given_env(site, env)}
    rendered = Recipe.read(release.path, site.recipe).render(given)
    policy.enforce(
        rendered,
        name=site.name,
        checkout=release.path,
        allow=site.allow,
        extra_domains=site.extra_domains,
    )
    return rendered


def pull_images(site: Site, rendered: RenderedRecipe) -> None:
    """Have every image of a recipe on the engine."""
    for image in rendered.images:
        if site.docker.image(image) is None:
            site.progress(f"pulling {image}")
            site.docker.pull(image, progress=site.progress)


def own(site: Site, rendered: RenderedRecipe, networks: Iterable[str]) -> None:
    """Write down what a submitted stack will make."""
    site.ledger.own(
        [
            *(f"service {site.name.prefix}{service}" for service in rendered.services),
            *(f"config {config.docker_name}" for config in rendered.configs),
            *(f"volume {volume}" for volume in rendered.volumes.values()),
            *(f"network {site.name.prefix}{network}" for network in networks),
        ]
    )


def names_lead_to_tasks(site: Site, rendered: RenderedRecipe) -> bool:
    """Tell whether services must be deployed with `endpoint_mode: dnsrr` to reach each other on this engine."""
    if len(rendered.services) == 1:
        return False
    image = tool_image(site.docker, "traefik", site.tool_images.get("traefik", ""), progress=site.progress)
    site.ledger.own([f"service {site.name.run_id}-vip", f"network {site.name.run_id}-vip"])
    return not virtual_ips_route(site.docker, site.name, site.state, image)


def escape(value: Any) -> Any:
    """Return a model whose text means itself to a reader that interpolates: `$` as `$$`."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: escape(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [escape(entry) for entry in value]
    return value


# Secrets


def missing_secrets(site: Site, rendered: RenderedRecipe) -> list[SecretSpec]:
    """Return the secrets that are not there yet.

    Raises:
        BadRecipeError: One of them may not be invented, and the enrolment gives no value.
    """
    present = {raw["Spec"]["Name"] for raw in site.docker.secrets(name=site.name.prefix)}
    missing = [spec for spec in rendered.secrets if spec.docker_name not in present]
    refused = [spec.name for spec in missing if not spec.generate and spec.name not in site.secrets]
    if refused:
        raise BadRecipeError(
            f"the recipe wants secrets that are not generated: {', '.join(refused)}",
            hint="give their values as `secrets={...}` in the enrolment's RecipeMeta",
        )
    return missing


def make_secret(spec: SecretSpec) -> str:
    """Make the value of a secret by the recipe's rules: random characters of a length, else a passphrase of words."""
    if spec.length:
        characters = spec.charset or ALPHABET
        return "".join(secrets.choice(characters) for _ in range(spec.length))
    return "-".join(_word() for _ in range(PASSPHRASE_WORDS))


def _word() -> str:
    """Make a word that can be read aloud."""
    return "".join(secrets.choice("bdfgklmnprstvz") + secrets.choice("aeiou") for _ in range(3))
