"""Build the forge, the CI server and its runner from the Go modules in `lab/forge/`, once for each version of them.

The result lies outside the checkout, in `$XDG_CACHE_HOME/coopcloud-ci/<name>-<hash>`, where the hash is that of the module's
files: a changed `go.sum` builds anew, and nothing else does. A folder is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DRONE", "GITEA", "PROGRAMS", "RUNNER", "BuildError", "Built", "Program", "build", "cache_home"]

FORGE = Path(__file__).parent / "forge"


class BuildError(Exception):
    """A program could not be built; the message ends with what the compiler said."""


@dataclass(frozen=True)
class Program:
    """A command of a Go module.

    Attributes:
        name: Its folder in `lab/forge/`, and the name of the binary.
        module: The module that it comes from.
        package: The command's package.
        tags: Build tags.
        beside: Folders of the module that the program reads when it runs.
        cold: How long a first build took on two cores, for the one who waits.
    """

    name: str
    module: str
    package: str
    tags: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    cold: str = ""


GITEA = Program(
    "gitea",
    "code.gitea.io/gitea",
    "code.gitea.io/gitea",
    tags=("sqlite", "sqlite_unlock_notify"),
    beside=("options", "public", "templates"),
    cold="4 to 6 minutes",
)
# No `oss` tag: that build lacks the interface that runners speak. For tests only: look at its licence before any other use.
DRONE = Program("drone", "github.com/drone/drone", "github.com/drone/drone/cmd/drone-server", cold="1 to 2 minutes")
RUNNER = Program(
    "runner", "github.com/drone-runners/drone-runner-exec", "github.com/drone-runners/drone-runner-exec", cold="10 s"
)
PROGRAMS = (GITEA, DRONE, RUNNER)


@dataclass(frozen=True)
class Built:
    """A built program: its folder, its binary, and how long the build took (0.0 where it was there)."""

    folder: Path
    binary: Path
    duration_seconds: float = 0.0


def cache_home() -> Path:
    """Where built programs lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coopcloud-ci"


def build(program: Program, *, cache: Path | None = None) -> Built:
    """Return `program`, built where this version of it has not been built before.

    Two calls at the same time make one build: the second waits for the first.

    Raises:
        BuildError: There is no Go, or the build failed.
    """
    cache = cache or cache_home()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{program.name}-{_key(program)}"
    binary = folder / program.name
    if binary.exists():
        return Built(folder, binary)
    with (cache / f"{program.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if binary.exists():
            return Built(folder, binary)
        for left in cache.glob(f".{program.name}-*"):
            # Of a build that was killed.
            shutil.rmtree(left, ignore_errors=True)
        began = time.monotonic()
        _compile(program, folder)
        return Built(folder, binary, time.monotonic() - began)


def _key(program: Program) -> str:
    digest = hashlib.sha256(repr((program.package, program.tags, program.beside)).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((FORGE / program.name / name).read_bytes())
    return digest.hexdigest()[:12]


def _compile(program: Program, folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            f"`go` is not on PATH, and {program.name} is built from source.\n\nhint: install Go 1.26 or newer"
        )
    # Beside the place where it ends up, so that moving it there is one step.
    work = Path(tempfile.mkdtemp(prefix=f".{program.name}-", dir=folder.parent))
    try:
        module = FORGE / program.name
        result = work / "result"
        result.mkdir()
        # `nice`: both cores are at work for minutes, and somebody may want to use this machine meanwhile.
        _go(
            program,
            [
                *("nice", go, "build", "-mod=readonly", "-trimpath", f"-tags={','.join(program.tags)}"),
                *("-o", str(result / program.name), program.package),
            ],
            module,
        )
        if program.beside:
            found = _go(program, [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", program.module], module)
            for name in program.beside:
                shutil.copytree(Path(found.strip()) / name, result / name, copy_function=shutil.copyfile)
        # What is copied from Go's module cache is read-only, which would make it hard to delete.
        for path in result.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        result.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _go(program: Program, argv: list[str], module: Path) -> str:
    done = subprocess.run(
        argv, cwd=module, env={**os.environ, "GOFLAGS": ""}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-20:])
        raise BuildError(f"{program.name} could not be built: `{' '.join(argv)}` ended with {done.returncode}:\n{tail}")
    return done.stdout
