"""The lab's forge: its configuration, and an API client that makes what is missing and leaves what is there."""

from __future__ import annotations

import getpass
import os
import secrets
import subprocess
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from lab.builds import Built
from lab.processes import LabError
from lab.state import HOST, Account, Lab, write_private

__all__ = ["Forge", "ForgeError", "push", "write_config"]

ADMIN = "keeper"


class ForgeError(LabError):
    """The forge refused a request."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        request = response.request
        super().__init__(
            f"the forge answered {request.method} {request.url.path} with {self.status}: {response.text[:300]}"
        )


def write_config(lab: Lab, built: Built) -> Path:
    """Write Gitea's `app.ini`; the same lab always gets the same secrets."""
    folder = lab.folder / "gitea"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sections: dict[str, dict[str, object]] = {
        "": {"APP_NAME": "lab forge", "RUN_USER": getpass.getuser(), "RUN_MODE": "prod", "WORK_PATH": folder},
        "server": {
            "HTTP_ADDR": HOST,
            "HTTP_PORT": lab.ports["gitea"],
            "DOMAIN": HOST,
            "ROOT_URL": f"{lab.url('gitea')}/",
            "STATIC_ROOT_PATH": built.folder,
            "DISABLE_SSH": True,
            "OFFLINE_MODE": True,
        },
        "database": {"DB_TYPE": "sqlite3", "PATH": folder / "gitea.db"},
        "repository": {"ROOT": folder / "repositories", "DEFAULT_BRANCH": "main"},
        "security": {
            "INSTALL_LOCK": True,
            "SECRET_KEY": lab.forge_secret,
            "INTERNAL_TOKEN": f"{lab.forge_secret}internal",
            # A lab's accounts have random passwords: a slow hash would only slow down the tests.
            "PASSWORD_HASH_ALGO": "pbkdf2$10000$50",
            "PASSWORD_COMPLEXITY": "off",
        },
        # Drone's logins outlive a restart of the forge only if this stays the same.
        "oauth2": {"JWT_SIGNING_ALGORITHM": "HS256", "JWT_SECRET": lab.oauth_signing_secret},
        "service": {"DISABLE_REGISTRATION": True},
        "webhook": {"ALLOWED_HOST_LIST": "loopback", "SKIP_TLS_VERIFY": False},
        "indexer": {"ISSUE_INDEXER_TYPE": "db"},
        "picture": {"DISABLE_GRAVATAR": True},
        "actions": {"ENABLED": False},
        "packages": {"ENABLED": False},
        "log": {"MODE": "console", "LEVEL": "Warn"},
        "session": {"PROVIDER": "memory"},
    }
    if os.geteuid() == 0:
        sections[""]["I_AM_BEING_UNSAFE_RUNNING_AS_ROOT"] = True
    lines = []
    for section, values in sections.items():
        if section:
            lines.append(f"\n[{section}]")
        lines += [
            f"{key} = {str(value).lower() if isinstance(value, bool) else value}" for key, value in values.items()
        ]
    return write_private(folder / "app.ini", "\n".join(lines) + "\n")


def prepare(lab: Lab, built: Built) -> None:
    """Make the database, and the administrator with a token that can do all else; before the server starts."""
    config = lab.folder / "gitea" / "app.ini"
    _gitea(built, config, "migrate")
    admin = lab.accounts[ADMIN]
    listed = _gitea(built, config, "admin", "user", "list", "--admin")
    if not any(ADMIN in line.split() for line in listed.splitlines()):
        # The password on a command line would be seen by all of this machine; it is set through the API later.
        _gitea(
            built, config, *("admin", "user", "create", "--admin", "--random-password", "--must-change-password=false"),
            *("--username", ADMIN, "--email", f"{ADMIN}@lab.example"),
        )  # fmt: skip
    if "lab" not in admin.tokens:
        name = f"lab-{secrets.token_hex(4)}"
        made = _gitea(
            built, config, *("admin", "user", "generate-access-token", "--raw", "--scopes", "all"),
            *("--username", ADMIN, "--token-name", name),
        )  # fmt: skip
        admin.tokens["lab"] = made.split()[-1]
        lab.save()


def _gitea(built: Built, config: Path, *arguments: str) -> str:
    argv = [str(built.binary), *arguments, "--config", str(config)]
    environ = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(config.parent), "USER": getpass.getuser()}
    done = subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise LabError(f"`gitea {' '.join(arguments)}` ended with {done.returncode}:\n{tail}")
    return done.stdout


class Forge:
    """The forge's API, asked as one of the lab's accounts: the administrator where nobody else is named."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client = httpx.Client(base_url=f"{lab.url('gitea')}/api/v1", timeout=30.0, trust_env=False)

    def __enter__(self) -> Forge:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, method: str, path: str, *, by: str = ADMIN, token: str = "lab", **options: Any) -> httpx.Response:
        """Send a request with one of an account's tokens, and return the answer, whatever it is."""
        headers = {"Authorization": f"token {self.lab.accounts[by].tokens[token]}"}
        return self.client.request(method, path, headers=headers, **options)

    def call(self, method: str, path: str, *, by: str = ADMIN, allow: tuple[int, ...] = (), **options: Any) -> Any:
        """Send a request and return the JSON of its answer.

        Raises:
            ForgeError: The answer is no success, and not one of `allow`.
        """
        response = self.ask(method, path, by=by, **options)
        if not response.is_success and response.status_code not in allow:
            raise ForgeError(response)
        return response.json() if response.content else None

    def await_content(self, full_name: str, *, timeout: float = 30.0) -> None:
        """Wait until the forge has dealt with the first push to a repository: before that it has no pull requests.

        Raises:
            LabError: It has not after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.call("GET", f"/repos/{full_name}")["empty"]:
            if time.monotonic() > deadline:
                raise LabError(f"{full_name} is still empty {timeout:.0f} s after a push")
            time.sleep(0.05)

    def let_pass(self, seconds: float) -> None:
        """Wait until the forge's own clock, which counts whole seconds, has gone on by more than this."""
        began = self._clock()
        while self._clock() <= began + seconds:
            time.sleep(0.1)

    def _clock(self) -> float:
        return parsedate_to_datetime(self.ask("GET", "/version").headers["Date"]).timestamp()

    def exists(self, path: str) -> bool:
        """Whether a GET of `path` succeeds."""
        return self.ask("GET", path).is_success

    def ensure_user(self, account: Account) -> None:
        """Make an account that can log in with its password, and has one token for everything."""
        if not self.exists(f"/users/{account.login}"):
            body = {
                "username": account.login,
                "email": f"{account.login}@lab.example",
                "password": account.password,
                "must_change_password": False,
            }
            self.call("POST", "/admin/users", json=body)
        if account.login == ADMIN:
            body = {"login_name": ADMIN, "source_id": 0, "password": account.password, "must_change_password": False}
            self.call("PATCH", f"/admin/users/{ADMIN}", json=body)
        self.ensure_token(account, "lab", ["all"])

    def ensure_token(self, account: Account, purpose: str, scopes: list[str]) -> None:
        """Make a token of `account` that may do `scopes`, kept under `purpose`."""
        if purpose in account.tokens:
            return
        response = self.client.post(
            f"/users/{account.login}/tokens",
            auth=(account.login, account.password),
            json={"name": f"{purpose}-{secrets.token_hex(4)}", "scopes": scopes},
        )
        if not response.is_success:
            raise ForgeError(response)
        account.tokens[purpose] = response.json()["sha1"]
        self.lab.save()

    def ensure_org(self, name: str) -> None:
        """Make an organisation, owned by the administrator."""
        if not self.exists(f"/orgs/{name}"):
            self.call("POST", "/orgs", json={"username": name, "visibility": "public"})

    def ensure_team(self, org: str, name: str, *, permission: str, members: list[str], repos: list[str]) -> None:
        """Make a team with exactly these rights, and at least these members and repositories."""
        teams = {team["name"]: team["id"] for team in self.call("GET", f"/orgs/{org}/teams")}
        if name not in teams:
            units = ["repo.code", "repo.issues", "repo.pulls"]
            body = {"name": name, "permission": permission, "units": units, "includes_all_repositories": False}
            teams[name] = self.call("POST", f"/orgs/{org}/teams", json=body)["id"]
        for member in members:
            self.call("PUT", f"/teams/{teams[name]}/members/{member}")
        for repo in repos:
            self.call("PUT", f"/teams/{teams[name]}/repos/{org}/{repo}")

    def ensure_repo(self, org: str, name: str, *, topics: tuple[str, ...] = ()) -> None:
        """Make a public repository without content."""
        if not self.exists(f"/repos/{org}/{name}"):
            body = {"name": name, "auto_init": False, "private": False, "default_branch": "main"}
            self.call("POST", f"/orgs/{org}/repos", json=body)
        for topic in topics:
            self.call("PUT", f"/repos/{org}/{name}/topics/{topic}")

    def ensure_pull(self, full_name: str, *, by: str, branch: str, title: str, body: str = "") -> dict[str, Any]:
        """Return the open pull request of `branch`, opened by `by` where there is none."""
        for pull in self.call("GET", f"/repos/{full_name}/pulls", params={"state": "open", "limit": 50}):
            if pull["head"]["ref"] == branch and pull["head"]["repo"]["full_name"] == full_name:
                return dict(pull)
        request = {"base": "main", "head": branch, "title": title, "body": body}
        return dict(self.call("POST", f"/repos/{full_name}/pulls", by=by, json=request))

    def ensure_hook(self, full_name: str, url: str, secret: str) -> None:
        """Deliver comments on pull requests of a repository to `url`, and to no address from before."""
        wanted = {"url": url, "content_type": "json", "secret": secret}
        found = False
        for hook in self.call("GET", f"/repos/{full_name}/hooks"):
            # Drone has a hook of its own in the CI repository.
            if not hook["config"]["url"].endswith("/hook") or "pull_request_comment" not in hook["events"]:
                continue
            if hook["config"]["url"] == url and not found:
                found = True
            else:
                self.call("DELETE", f"/repos/{full_name}/hooks/{hook['id']}")
        if not found:
            body = {"type": "gitea", "active": True, "events": ["pull_request_comment"], "config": wanted}
            self.call("POST", f"/repos/{full_name}/hooks", json=body)

    def comment(self, full_name: str, number: int, text: str, *, by: str) -> dict[str, Any]:
        """Write a comment under an issue or a pull request, and return it."""
        return dict(self.call("POST", f"/repos/{full_name}/issues/{number}/comments", by=by, json={"body": text}))

    def comments(self, full_name: str, number: int) -> list[dict[str, Any]]:
        """List all comments of an issue or a pull request."""
        return list(self.call("GET", f"/repos/{full_name}/issues/{number}/comments"))


def push(
    lab: Lab, source: Path, full_name: str, *refspecs: str, by: str = ADMIN, environ: dict[str, str] | None = None
) -> None:
    """Push from a local repository to one of the forge, as `by`; `environ` says where its objects are, if not there.

    Raises:
        LabError: git refused; the message holds what it said.
    """
    token = lab.accounts[by].tokens["lab"]
    # Through the environment: an argument would be seen by all of this machine.
    whole = {
        **(environ or {}),
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(lab.folder / "home"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "http.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: token {token}",
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "*",
    }
    url = f"{lab.url('gitea')}/{full_name}.git"
    argv = ["git", "-C", str(source), "push", "--quiet", "--no-verify", url, *refspecs]
    done = subprocess.run(argv, env=whole, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"`git push {url} {' '.join(refspecs)}` ended with {done.returncode}:\n{done.stderr.strip()}")
