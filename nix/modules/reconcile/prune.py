"""Remove images that nothing needs, when the disk is short and no run is going on.

An image stays where a container or a service uses it, or where an enrolled recipe names it: those would be pulled again
by the next run, and registries count pulls.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .command import run
from .errors import CommandError
from .settings import required

__all__ = ["enrolled_images", "prune", "unused_images"]

_IMAGE = re.compile(r"^\s*image:\s*[\"']?([^\s\"'#]+)", re.M)
# The newest versions of a recipe are what its runs deploy: the head and what it upgrades from.
VERSIONS = 2


def prune(environment: Mapping[str, str]) -> list[str]:
    """Remove images, the oldest first, until the disk is below the threshold; return what was removed."""
    path = required(environment, "RECONCILE_DISK_PATH")
    threshold = float(required(environment, "RECONCILE_DISK_PERCENT"))
    state = Path(required(environment, "COOPCLOUD_CI_STATE"))
    if _used(path) < threshold:
        _say(f"{path} is {_used(path):.0f} % full, below {threshold:.0f} %: nothing to do")
        return []
    with _no_run(state, int(environment.get("MAX_TESTS") or 1)) as quiet:
        if not quiet:
            _say("a run is going on, another time")
            return []
        removed = []
        for image in unused_images(keep=enrolled_images(state / "mirrors")):
            with contextlib.suppress(CommandError):
                run(["docker", "image", "rm", image])
                removed.append(image)
                _say(f"removed {image}")
            if _used(path) < threshold:
                break
        else:
            _say(f"{path} is still {_used(path):.0f} % full and no image is left that may go: docs/runbook.md, `disk`")
        return removed


def enrolled_images(mirrors: Path) -> set[str]:
    """Return the images that the mirrored recipes name, at their head and at their newest versions."""
    images: set[str] = set()
    for head in sorted(mirrors.glob("**/HEAD")):
        git = ["git", "-c", "safe.directory=*", "-C", str(head.parent)]
        with contextlib.suppress(CommandError):
            tags = run([*git, "tag", "--sort=-creatordate"]).split()[:VERSIONS]
            for revision in ("HEAD", *tags):
                for name in run([*git, "ls-tree", "--name-only", revision]).splitlines():
                    if re.fullmatch(r"compose(\..+)?\.ya?ml", name):
                        images |= set(_IMAGE.findall(run([*git, "show", f"{revision}:{name}"])))
    return images


def unused_images(*, keep: set[str]) -> list[str]:
    """Return images that no container and no service uses and that are not in `keep`; the oldest first.

    Images that came with a label `coopcloud.pytest.tool` are tools of the runs and stay as well.
    """
    names = run(["docker", "image", "ls", "--quiet", "--no-trunc"]).split()
    containers = run(["docker", "ps", "--all", "--quiet", "--no-trunc"]).split()
    services = run(["docker", "service", "ls", "--quiet"]).split()
    used: set[str] = set()
    if containers:
        used |= {one["Image"] for one in json.loads(run(["docker", "inspect", *containers]))}
    if services:
        found = json.loads(run(["docker", "service", "inspect", *services]))
        used |= {one["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].partition("@")[0] for one in found}
    if not names:
        return []
    unused = []
    for image in json.loads(run(["docker", "image", "inspect", *sorted(set(names))])):
        tags = set(image["RepoTags"] or ())
        tool = "coopcloud.pytest.tool" in (image["Config"].get("Labels") or {})
        if image["Id"] in used or tags & (used | keep) or tool:
            continue
        unused += [(image["Created"], name) for name in sorted(tags) or [image["Id"]]]
    return [name for _, name in sorted(unused)]


@contextlib.contextmanager
def _no_run(state: Path, places: int) -> Iterator[bool]:
    """Take every place that a run could take, so that none begins; False where one is taken."""
    slots = state / "slots"
    slots.mkdir(parents=True, exist_ok=True)
    fds = [os.open(slots / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666) for number in range(places)]
    try:
        for fd in fds:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        for fd in fds:
            os.close(fd)


def _used(path: str) -> float:
    usage = shutil.disk_usage(path)
    return 100.0 * usage.used / (usage.used + usage.free)


def _say(text: str) -> None:
    print(f"prune: {text}", file=sys.stderr, flush=True)
