"""What the backup labels select: volumes, paths in them, and where services have them."""

from __future__ import annotations

from pytest_coopcloud.deployers.protocol import Mount
from pytest_coopcloud.recipes import RenderedRecipe
from pytest_coopcloud.restic import data_path

__all__ = ["selected_mounts", "selection"]


def selected_mounts(rendered: RenderedRecipe) -> list[Mount]:
    """Return the named volumes, each where the first service has it."""
    backed_up = _volumes(rendered)
    return [
        Mount(
            service=service,
            path=target,
            volume=name,
            backed_up=key in backed_up,
            whole=key in backed_up and not backed_up[key],
        )
        for key, name in rendered.volumes.items()
        for service, target in rendered.mounts_of(key)[:1]
    ]


def selection(rendered: RenderedRecipe) -> tuple[list[str], list[str], list[str]]:
    """Return the volumes to mount, the paths to back up, and those of them that the labels name."""
    volumes, paths, wanted = [], [], []
    for key, inside in _volumes(rendered).items():
        name = rendered.volumes[key]
        volumes.append(name)
        named = [f"{data_path(name)}/{path.strip('/')}" for path in inside]
        paths += named or [data_path(name)]
        wanted += named
    return volumes, paths, wanted


def _volumes(rendered: RenderedRecipe) -> dict[str, tuple[str, ...]]:
    """Return each volume that is backed up, by its key, with the paths in it; no paths means all of it."""
    return dict(rendered.backup.volumes) if rendered.backup is not None else {}
