"""Images of the tools that a run needs beside the recipe's own: restic and Traefik.

An image of the engine that carries the label `coopcloud.pytest.tool=<tool>` is taken first (an offline machine has its own
build), then the published one, pulled once.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.inventory import TOOL_LABEL

__all__ = ["PUBLISHED", "tool_image"]

#: Where each tool is published.
PUBLISHED = {"restic": "restic/restic:0.18.0", "traefik": "traefik:v3.5"}


def tool_image(
    docker: Docker, tool: str, wanted: str = "", *, progress: Callable[[str], None] = lambda text: None
) -> str:
    """Return an image of `tool` that is on the engine.

    Args:
        docker: The engine.
        tool: `restic` or `traefik`.
        wanted: An image that the user names; pulled where it is missing.
        progress: Called with a line while it is pulled.

    Raises:
        ImageError: There is none, and it cannot be pulled.
    """
    if not wanted:
        for image in docker.images(label=f"{TOOL_LABEL}={tool}"):
            tags = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
            return str(tags[0] if tags else image["Id"])
        wanted = PUBLISHED[tool]
    if docker.image(wanted) is None:
        docker.pull(wanted, progress=progress)
    return wanted
