"""Bring the lab up, say how it is, and take it down with all that it made."""

from __future__ import annotations

import fcntl
import getpass
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from lab import drone, gitea, samples
from lab.builds import PROGRAMS, Built, build
from lab.gitea import Forge
from lab.processes import CHECKOUT, LabError, await_answer, find, start, stop_all
from lab.state import CI_REPO, HOST, ORG, UPSTREAM, Lab, write_private

__all__ = ["PROCESSES", "Say", "down", "is_up", "push_ci", "restart", "up", "wanted"]

Say = Callable[[str], None]

PROCESSES = ("gitea", "drone", "runner", "bridge", "dashboard")
#: What shows that a server is ready.
HEALTH = {
    "gitea": "/api/healthz",
    "drone": "/healthz",
    "runner": "/healthz",
    "bridge": "/healthz",
    "dashboard": "/healthz",
}


def quiet(_: str) -> None:
    """Say nothing."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep everyone else from starting or stopping the same lab."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wanted() -> tuple[str, ...]:
    """Return the processes that this checkout has the programs of."""
    return tuple(
        name
        for name in PROCESSES
        if name not in ("bridge", "dashboard") or importlib.util.find_spec(f"{name}.__main__")
    )


def is_up(lab: Lab) -> bool:
    """Whether every process of the lab runs and answers."""
    if not lab.linked:
        return False
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        for name in wanted():
            if not find(lab, name):
                return False
            try:
                if not _healthy(name, client.get(f"{lab.url(name)}{HEALTH[name]}")):
                    return False
            except httpx.HTTPError:
                return False
    return True


def _healthy(name: str, response: httpx.Response) -> bool:
    # The bridge says 503 while the forge or Drone is away: it runs, and will recover.
    return response.status_code == 200 or (name == "bridge" and response.status_code == 503)


def up(
    folder: Path,
    *,
    say: Say = quiet,
    recipes: tuple[str, ...] = samples.RECIPES,
    bridge: dict[str, str] | None = None,
) -> Lab:
    """Bring the lab in `folder` up, from nothing or from what an earlier one left, and return it.

    A lab that is up already is left alone.

    Args:
        folder: Where all of it lies.
        say: Told what is going on.
        recipes: The sample recipes that it has.
        bridge: More settings of the bridge.

    Raises:
        LabError: Something did not start; the message ends with its log. What did start is left running to be looked at.
    """
    with locked(folder):
        lab = Lab.open(folder)
        if is_up(lab):
            say("the lab is up already")
            return lab
        built = {program.name: _built(program.name, say) for program in PROGRAMS}
        stop_all(lab)
        lab.choose_ports()
        lab.bridge = bridge or lab.bridge
        lab.save()
        (lab.state / "runs").mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        say("starting the forge")
        gitea.write_config(lab, built["gitea"])
        gitea.prepare(lab, built["gitea"])
        _start(lab, "gitea", built)
        with Forge(lab) as forge:
            _fill(lab, forge, recipes, say)
            say("starting Drone, and introducing it to the forge")
            drone.ensure_oauth(lab, forge)
            _start(lab, "drone", built)
            drone.link(lab)
        for name in wanted():
            if name not in ("gitea", "drone"):
                say(f"starting the {name}")
                _start(lab, name, built)
        lab.save()
        say(f"up after {time.monotonic() - began:.1f} s")
        return lab


def _built(name: str, say: Say) -> Built:
    program = {program.name: program for program in PROGRAMS}[name]
    say(f"{name}: looking for a build ({program.cold} where there is none)")
    built = build(program)
    if built.duration_seconds:
        say(f"{name}: built in {built.duration_seconds:.0f} s")
    return built


def settings_of(lab: Lab, name: str, built: dict[str, Built]) -> dict[str, str]:
    """Return the environment of one process."""
    if name == "gitea":
        config = lab.folder / "gitea" / "app.ini"
        return {"GITEA": str(built["gitea"].binary), "GITEA_CONFIG": str(config), "USER": getpass.getuser()}
    if name == "drone":
        return drone.server_settings(lab, built["drone"])
    if name == "runner":
        return drone.runner_settings(lab, built["runner"])
    if name == "bridge":
        return _bridge_settings(lab)
    return _dashboard_settings(lab)


def restart(lab: Lab, name: str) -> float:
    """Start one process of a lab again, after it ended or was stopped; return the seconds until it answered."""
    return _start(lab, name, {program.name: build(program) for program in PROGRAMS})


def _start(lab: Lab, name: str, built: dict[str, Built]) -> float:
    start(lab, name, settings_of(lab, name, built))
    return await_answer(lab, name, HEALTH[name], accept=lambda response: _healthy(name, response))


def _bridge_settings(lab: Lab) -> dict[str, str]:
    secret_folder = lab.folder / "secrets"
    bot = lab.accounts["testme-bot"]
    secrets = {
        "FORGE_TOKEN": bot.tokens["comment"],
        "FORGE_READ_TOKEN": bot.tokens["poll"],
        "DRONE_TOKEN": lab.drone_bridge_token,
        "WEBHOOK_SECRETS": lab.webhook_secret,
    }
    files = {name: write_private(secret_folder / name.lower(), value) for name, value in secrets.items()}
    lab.state.mkdir(parents=True, exist_ok=True)
    return {
        "PYTHON": sys.executable,
        "POLL_ORGS": ORG,
        "COOPCLOUD_CI_STATE": str(lab.state),
        "CCCI_BRIDGE_HOST": HOST,
        "CCCI_BRIDGE_PORT": str(lab.ports["bridge"]),
        "CCCI_BRIDGE_FORGE_URL": lab.url("gitea"),
        "CCCI_BRIDGE_DRONE_URL": lab.url("drone"),
        "CCCI_BRIDGE_DRONE_REPO": CI_REPO,
        "CCCI_BRIDGE_DASHBOARD_URL": lab.url("dashboard"),
        "CCCI_BRIDGE_MEMBERS_ORG": ORG,
        **{f"CCCI_BRIDGE_{name}_FILE": str(path) for name, path in files.items()},
        **lab.bridge,
    }


def _dashboard_settings(lab: Lab) -> dict[str, str]:
    return {
        "PYTHON": sys.executable,
        "COOPCLOUD_CI_STATE": str(lab.state),
        "CCCI_DASHBOARD_HOST": HOST,
        "CCCI_DASHBOARD_PORT": str(lab.ports["dashboard"]),
        "CCCI_DASHBOARD_PUBLIC_URL": lab.url("dashboard"),
        "CCCI_DASHBOARD_FORGE_URL": lab.url("gitea"),
        # The CI repository is public: its builds are seen without a token.
        "CCCI_DASHBOARD_DRONE_URL": lab.url("drone"),
        "CCCI_DASHBOARD_DRONE_REPO": CI_REPO,
    }


def _fill(lab: Lab, forge: Forge, recipes: tuple[str, ...], say: Say) -> None:
    """Make users, organisations, repositories, teams, hooks and pull requests, where they are not there yet."""
    for account in sorted(lab.accounts.values(), key=lambda account: account.login != gitea.ADMIN):
        forge.ensure_user(account)
    bot = lab.accounts["testme-bot"]
    # Tokens are split by what they may do, so that the one which is used most can do least.
    forge.ensure_token(bot, "poll", ["read:issue", "read:repository", "read:organization", "read:user"])
    forge.ensure_token(
        bot, "comment", ["write:issue", "write:repository", "read:organization", "read:user"]
    )  # fmt: skip
    for org in (ORG, UPSTREAM):
        forge.ensure_org(org)
    forge.ensure_repo(ORG, "ci")
    for name in recipes:
        forge.ensure_repo(ORG, name)
    forge.ensure_team(ORG, "maintainers", permission="write", members=["maya"], repos=list(recipes))
    # To read would do, but a commit's status can only be set by who may write.
    forge.ensure_team(ORG, "bots", permission="write", members=["testme-bot"], repos=list(recipes))
    forge.ensure_team(ORG, "builds", permission="write", members=[drone.BUILDS_USER], repos=["ci"])
    say("pushing this checkout's HEAD as the CI repository")
    push_ci(lab, forge)
    for name in recipes:
        say(f"setting up the recipe {name}")
        lab.pulls[name] = samples.set_up(lab, forge, name)["number"]
        forge.ensure_hook(f"{ORG}/{name}", f"{lab.url('bridge')}/hook", lab.webhook_secret)
    lab.save()


def push_ci(lab: Lab, forge: Forge, *, source: Path = CHECKOUT, revision: str = "HEAD") -> str:
    """Make `revision` of a repository the CI repository's `main`, which nobody but the administrator may push to.

    The sample recipes are enrolled in it, as a CI repository enrols real ones: by `recipes/<name>/conftest.py`.
    """
    commit = samples.git(source, "rev-parse", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory() as scratch:
        # What is made here never gets into the repository that it is made from.
        objects = Path(scratch) / "objects"
        objects.mkdir()
        shared = samples.git(source, "rev-parse", "--path-format=absolute", "--git-path", "objects")
        environ = {
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": shared,
            "GIT_INDEX_FILE": str(Path(scratch) / "index"),
        }
        made = _enrol_samples(source, commit, environ)
        branch = forge.ask("GET", f"/repos/{CI_REPO}/branches/main")
        if not branch.is_success or branch.json()["commit"]["id"] != made:
            gitea.push(lab, source, CI_REPO, f"+{made}:refs/heads/main", environ=environ)
    if not forge.exists(f"/repos/{CI_REPO}/branch_protections/**"):
        # Whoever pushes here owns the host: the build of a `push` runs what was pushed.
        rule = {
            "rule_name": "**",
            "enable_push": True,
            "enable_push_whitelist": True,
            "push_whitelist_usernames": [gitea.ADMIN],
            "enable_force_push": True,
            "enable_force_push_allowlist": True,
            "force_push_allowlist_usernames": [gitea.ADMIN],
        }
        forge.call("POST", f"/repos/{CI_REPO}/branch_protections", json=rule)
    return commit


def _enrol_samples(source: Path, commit: str, environ: dict[str, str]) -> str:
    """Return a commit on top of `commit` that enrols the sample recipes; the same one for the same commit."""
    samples.git(source, "read-tree", commit, environ=environ)
    for name in samples.RECIPES:
        tests = f"{commit}:lab/recipes/{name}/head/tests"
        there = samples.git(source, "ls-tree", commit, f"recipes/{name}/", environ=environ)
        if not there and samples.git(source, "ls-tree", commit, f"lab/recipes/{name}/head/tests", environ=environ):
            samples.git(source, "read-tree", f"--prefix=recipes/{name}/", tests, environ=environ)
    tree = samples.git(source, "write-tree", environ=environ)
    date = samples.git(source, "log", "-1", "--format=%cI", commit, environ=environ)
    for who in ("AUTHOR", "COMMITTER"):
        environ |= {f"GIT_{who}_NAME": "lab", f"GIT_{who}_EMAIL": "lab@lab.example", f"GIT_{who}_DATE": date}
    # The forge takes no commits whose parents are missing, so a shallow clone's history is left out.
    shallow = samples.git(source, "rev-parse", "--is-shallow-repository") == "true"
    parent = [] if shallow else ["-p", commit]
    return samples.git(source, "commit-tree", *parent, "-m", f"lab: {commit} with the samples", tree, environ=environ)


def down(folder: Path, *, say: Say = quiet) -> None:
    """Stop everything, take down what its runs left in Docker, and remove the lab's folder."""
    with locked(folder):
        lab = Lab.open(folder)
        for process in find(lab):
            if not process.is_honcho:
                say(f"stopping {process.name} (process {process.pid})")
        stop_all(lab)
        _clean_runs(lab, say)
        if folder.exists():
            shutil.rmtree(folder)
            say(f"removed {folder}")


def _clean_runs(lab: Lab, say: Say) -> None:
    """Take down the apps of runs that were cut off, by the same code that cleans up after any run."""
    if not (lab.state / "runs").is_dir() or not importlib.util.find_spec("pytest_coopcloud.__main__"):
        return
    for lock in sorted((lab.state / "runs").glob("*/lock")):
        # The run's own reaper may be at work still; it lets go when it is done.
        subprocess.run(["flock", "--timeout", "60", str(lock), "true"], check=False)
    done = subprocess.run(
        [sys.executable, "-m", "pytest_coopcloud", "janitor"],
        cwd=CHECKOUT,
        env={**os.environ, "COOPCLOUD_CI_STATE": str(lab.state), "CCCI_JANITOR_MAX_AGE": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise LabError(f"the janitor ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    for line in done.stdout.splitlines():
        say(line)
