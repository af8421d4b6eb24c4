"""A small recipe that has everything a run can be killed in: a secret, a volume, backup hooks, a version to upgrade from.

As a plugin (`-p killable`) it stops a run at the phase that `KILL_PHASE` names: it says so in the file `KILL_FILE`, and
stays there until it is killed.
"""

from __future__ import annotations

import functools
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES = ("cloning", "secrets", "deploying", "waiting", "upgrading", "backup-hook", "restoring", "teardown")

COMPOSE = """
version: "3.8"
services:
  app:
    image: coopcloud-lab/hello:{image}
    networks: [proxy]
    volumes: ["www:/var/www"]
    secrets: [token]
    stop_grace_period: 1s
    deploy:
      labels:
        - "traefik.enable=true"
        - "traefik.http.services.${{STACK_NAME}}.loadbalancer.server.port=80"
        - "traefik.http.routers.${{STACK_NAME}}.rule=Host(`${{DOMAIN}}`)"
        - "traefik.http.routers.${{STACK_NAME}}.entrypoints=web-secure"
        - "traefik.http.routers.${{STACK_NAME}}.tls.certresolver=${{LETS_ENCRYPT_ENV}}"
        - "backupbot.backup=true"
        - "backupbot.backup.pre-hook=true"
        - "coop-cloud.${{STACK_NAME}}.version={version}"
networks:
  proxy:
    external: true
volumes:
  www:
secrets:
  token:
    external: true
    name: ${{STACK_NAME}}_token_${{SECRET_TOKEN_VERSION}}
"""


def make_recipe(folder: Path) -> Path:
    """Make the recipe's repository: one published version, and a head."""
    folder.mkdir(parents=True)
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def git(*argv: str) -> None:
        subprocess.run(["git", *argv], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)

    git("init", "-q", "-b", "main")
    (folder / ".env.sample").write_text(
        "TYPE=killable\nDOMAIN=\nLETS_ENCRYPT_ENV=\nSECRET_TOKEN_VERSION=v1 # length=20\n"
    )
    for image, version in (("1.0.0", "1.0.0+1.0.0"), ("1.1.0", "1.1.0+1.1.0")):
        (folder / "compose.yml").write_text(COMPOSE.format(image=image, version=version))
        git("add", "-A")
        git("commit", "-q", "-m", version)
        if image == "1.0.0":
            git("tag", "-a", "-m", version, version)
    return folder


def pytest_configure() -> None:
    """Stop the run where it is told to."""
    phase = os.environ.get("KILL_PHASE", "")
    if not phase:
        return
    from pytest_coopcloud import run as runs
    from pytest_coopcloud.deployers.swarm import SwarmDeployer
    from pytest_coopcloud.docker import Docker
    from pytest_coopcloud.restic import Restic

    places: dict[str, tuple[Any, str]] = (
        _places_of_abra()
        if os.environ["COOPCLOUD_DEPLOYER"] == "abra"
        else {
            "cloning": (runs, "fetch"),
            "secrets": (Docker, "create_secret"),
            "deploying": (Docker, "stack_deploy"),
            "waiting": (runs, "wait"),
            "upgrading": (SwarmDeployer, "upgrade"),
            "backup-hook": (SwarmDeployer, "_hooks"),
            "restoring": (Restic, "restore"),
            "teardown": (runs, "take_down"),
        }
    )
    owner, name = places[phase]
    setattr(owner, name, _stopping(getattr(owner, name)))


def _places_of_abra() -> dict[str, tuple[Any, str]]:
    from pytest_coopcloud import run as runs
    from pytest_coopcloud.abra import Abra
    from pytest_coopcloud.deployers.abra import AbraDeployer

    return {
        "cloning": (runs, "fetch"),
        "secrets": (Abra, "app_secret_generate"),
        "deploying": (Abra, "app_deploy"),
        "waiting": (runs, "wait"),
        "upgrading": (AbraDeployer, "upgrade"),
        "backup-hook": (Abra, "app_backup_create"),
        "restoring": (Abra, "app_restore"),
        "teardown": (runs, "take_down"),
    }


def _stopping(real: Callable[..., Any]) -> Callable[..., Any]:
    """Begin the real thing on the side, say that it is going on, and stay."""

    @functools.wraps(real)
    def stop(*args: Any, **kwargs: Any) -> Any:
        side = threading.Thread(target=lambda: real(*args, **kwargs), daemon=True)
        side.start()
        side.join(0.05)
        Path(os.environ["KILL_FILE"]).write_text(str(os.getpid()))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.1)  # killed here, or interrupted by a signal
        raise TimeoutError("nobody killed this run")

    return stop
