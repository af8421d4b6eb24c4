"""The deployers: one file each, and the value of `--deployer` is the file's name."""

from __future__ import annotations

import importlib
import shutil

from pytest_coopcloud.deployers.protocol import Deployer, Site
from pytest_coopcloud.errors import BadInputError
from pytest_coopcloud.results import CauseClass

__all__ = ["DEPLOYERS", "default_deployer", "get_deployer"]

DEPLOYERS = ("abra", "swarm")


def default_deployer() -> str:
    """Return `abra` where it is on PATH, else `swarm`."""
    return "abra" if shutil.which("abra") else "swarm"


def get_deployer(name: str, site: Site) -> Deployer:
    """Make the deployer of that name.

    Raises:
        BadInputError: There is none of that name.
    """
    if name not in DEPLOYERS:
        raise BadInputError(
            f"there is no deployer {name[:40]!r}", hint=f"take one of {', '.join(DEPLOYERS)}", cause=CauseClass.TEST
        )
    module = importlib.import_module(f"pytest_coopcloud.deployers.{name}")
    made: Deployer = module.make(site)
    return made
