"""Put the sample recipes on the forge: published versions, and a pull request with the head that is not published yet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from lab.gitea import Forge, push
from lab.processes import CHECKOUT, LabError
from lab.state import ORG, UPSTREAM, Lab

__all__ = ["RECIPES", "git", "open_pull", "recipe_path", "set_up"]

RECIPES = ("guestbook", "hello", "custom-html")
MAINTAINER = "maya"


def recipe_path(name: str, variant: str = "") -> Path:
    """Return the git repository of a sample recipe, made with its images where it is not there yet."""
    argv = [str(CHECKOUT / "dev"), "recipe", name, *([f"--variant={variant}"] if variant else [])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"the sample recipe {name} could not be made:\n{done.stderr.strip()}")
    return Path(done.stdout.strip().splitlines()[-1])


def git(repository: Path, *arguments: str, environ: dict[str, str] | None = None) -> str:
    """Run git in a repository, with `environ` beside the environment, and return what it printed.

    Raises:
        LabError: It failed.
    """
    argv = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    whole = {**os.environ, **(environ or {})}
    done = subprocess.run(argv, env=whole, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"`{' '.join(argv)}` ended with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout.strip()


def set_up(lab: Lab, forge: Forge, name: str) -> dict[str, Any]:
    """Publish a sample recipe upstream and in the organisation's mirror, and return its open pull request."""
    source = recipe_path(name)
    newest = git(source, "describe", "--tags", "--abbrev=0", "main")
    for owner in (UPSTREAM, ORG):
        forge.ensure_repo(owner, name, topics=("coopcloud-ci",) if owner == ORG else ())
        # What has been merged since a lab's first start stays merged.
        if not forge.exists(f"/repos/{owner}/{name}/branches/main"):
            push(lab, source, f"{owner}/{name}", f"{newest}^{{commit}}:refs/heads/main", "refs/tags/*:refs/tags/*")
            forge.await_content(f"{owner}/{name}")
    return open_pull(lab, forge, name)


def open_pull(lab: Lab, forge: Forge, name: str, variant: str = "") -> dict[str, Any]:
    """Return the open pull request with the head of a sample recipe, or of one of its variants, opened where there is none."""
    source = recipe_path(name, variant)
    branch = variant or "next-version"
    there = forge.ask("GET", f"/repos/{ORG}/{name}/branches/{branch}")
    pushes = not there.is_success or there.json()["commit"]["id"] != git(source, "rev-parse", "main")
    if pushes:
        push(lab, source, f"{ORG}/{name}", f"+main:refs/heads/{branch}", by=MAINTAINER)
    title = f"{name}: prepare the next version" + (f" ({variant})" if variant else "")
    pull = forge.ensure_pull(f"{ORG}/{name}", by=MAINTAINER, branch=branch, title=title)
    if pushes and variant:
        # A comment in the second of a push may mean the commit from before it, so the bridge would ask for another.
        forge.let_pass(1.0)
    return pull
