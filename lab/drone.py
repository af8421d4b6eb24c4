"""The lab's CI engine: settings of the Drone server and its exec runner, a login without a browser, and an API client."""

from __future__ import annotations

import contextlib
import os
import re
from html import unescape
from typing import Any

import httpx

from lab.builds import Built
from lab.gitea import ADMIN, Forge
from lab.processes import LabError
from lab.state import CI_REPO, HOST, ORG, Lab

__all__ = ["BUILDS_USER", "Drone", "DroneError", "ensure_oauth", "link", "runner_settings", "server_settings"]

BUILDS_USER = "testme-builds"
#: Minutes: a run's own deadline, its teardown, and some more.
TIMEOUT_MINUTES = 60


class DroneError(LabError):
    """Drone refused a request."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        request = response.request
        super().__init__(
            f"Drone answered {request.method} {request.url.path} with {self.status}: {response.text[:300]}"
        )


def server_settings(lab: Lab, built: Built) -> dict[str, str]:
    """Return the environment of the Drone server."""
    folder = lab.folder / "drone"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    address = f"{HOST}:{lab.ports['drone']}"
    return {
        "DRONE": str(built.binary),
        "DRONE_GITEA_SERVER": lab.url("gitea"),
        "DRONE_GITEA_CLIENT_ID": lab.oauth_id,
        "DRONE_GITEA_CLIENT_SECRET": lab.oauth_secret,
        "DRONE_RPC_SECRET": lab.rpc_secret,
        "DRONE_COOKIE_SECRET": lab.cookie_secret,
        "DRONE_SERVER_HOST": address,
        "DRONE_SERVER_PROTO": "http",
        "DRONE_SERVER_PORT": address,
        "DRONE_DATABASE_DRIVER": "sqlite3",
        "DRONE_DATABASE_DATASOURCE": str(folder / "drone.sqlite"),
        # The first token stands in the server's log: `link` draws another, and from then on none is given here.
        "DRONE_USER_CREATE": f"username:{ADMIN},admin:true" + ("" if lab.linked else f",token:{lab.drone_admin_token}"),
        "DRONE_REGISTRATION_CLOSED": "true",
        "DRONE_USER_FILTER": f"{ADMIN},{BUILDS_USER}",
        "DRONE_REPOSITORY_FILTER": ORG,
        # A build whose runner was killed stays `running` until the server's own broom finds it.
        "DRONE_CLEANUP_INTERVAL": "5m",
        "DRONE_CLEANUP_DEADLINE_RUNNING": f"{TIMEOUT_MINUTES + 10}m",
        "DRONE_CLEANUP_DEADLINE_PENDING": "24h",
        "DRONE_DATADOG_ENABLED": "false",
    }


def runner_settings(lab: Lab, built: Built) -> dict[str, str]:
    """Return the environment of the exec runner: one build at a time, of the CI repository, never of a pull request."""
    root = lab.folder / "runner"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    host = {"COOPCLOUD_CI_STATE": str(lab.state), **run_settings(lab)}
    return {
        "RUNNER": str(built.binary),
        "DRONE_RPC_PROTO": "http",
        "DRONE_RPC_HOST": f"{HOST}:{lab.ports['drone']}",
        "DRONE_RPC_SECRET": lab.rpc_secret,
        "DRONE_RUNNER_NAME": "lab",
        "DRONE_RUNNER_CAPACITY": "1",
        "DRONE_RUNNER_ROOT": str(root),
        "DRONE_LIMIT_REPOS": CI_REPO,
        "DRONE_LIMIT_EVENTS": "custom,push",
        "DRONE_HTTP_BIND": f"{HOST}:{lab.ports['runner']}",
        # What the runs are told stands in the runner's own environment, which a build's parameters cannot change.
        **host,
    }


def run_settings(lab: Lab) -> dict[str, str]:
    """Return what the host tells each run."""
    return {
        "COOPCLOUD_FORGE_URL": lab.url("gitea"),
        "COOPCLOUD_UPSTREAM_URL": f"{lab.url('gitea')}/coop-cloud",
        "COOPCLOUD_GIT_PROTOCOLS": "http",
        "DOCKER_HOST": os.environ.get("DOCKER_HOST", ""),
    }


def ensure_oauth(lab: Lab, forge: Forge) -> None:
    """Register Drone with the forge; the addresses may have changed since the last time."""
    wanted = {"name": "drone", "redirect_uris": [f"{lab.url('drone')}/login"], "confidential_client": True}
    for found in forge.call("GET", "/user/applications/oauth2"):
        if found["client_id"] == lab.oauth_id and lab.oauth_secret:
            if found["redirect_uris"] != wanted["redirect_uris"]:
                # The forge draws a new secret with each change.
                changed = forge.call("PATCH", f"/user/applications/oauth2/{found['id']}", json=wanted)
                lab.oauth_secret = changed["client_secret"]
                lab.save()
            return
    made = forge.call("POST", "/user/applications/oauth2", json=wanted)
    lab.oauth_id, lab.oauth_secret = made["client_id"], made["client_secret"]
    lab.save()


class Drone:
    """Drone's API, asked as its administrator, or with another token."""

    def __init__(self, lab: Lab, *, token: str = "") -> None:
        self.lab = lab
        headers = {"Authorization": f"Bearer {token or lab.drone_admin_token}"}
        self.client = httpx.Client(base_url=f"{lab.url('drone')}/api", headers=headers, timeout=30.0, trust_env=False)

    def __enter__(self) -> Drone:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the JSON of its answer.

        Raises:
            DroneError: The answer is no success.
        """
        response = self.client.request(method, path, **options)
        if not response.is_success:
            raise DroneError(response)
        return response.json() if response.content else None

    def create(self, params: dict[str, str], *, repo: str = CI_REPO) -> Any:
        """Start a custom build with `params`; None where no pipeline matched."""
        return self.call("POST", f"/repos/{repo}/builds", params=params)

    def build(self, number: int, *, repo: str = CI_REPO) -> dict[str, Any]:
        """Return one build."""
        return dict(self.call("GET", f"/repos/{repo}/builds/{number}"))

    def builds(self, *, repo: str = CI_REPO) -> list[dict[str, Any]]:
        """Return the newest 100 builds, the newest first."""
        return list(self.call("GET", f"/repos/{repo}/builds", params={"per_page": 100}))

    def log(self, number: int, *, stage: int = 1, step: int = 2, repo: str = CI_REPO) -> str:
        """Return what a step printed (step 1 clones); empty where it has printed nothing."""
        response = self.client.get(f"/repos/{repo}/builds/{number}/logs/{stage}/{step}")
        if response.status_code == 404:
            return ""
        if not response.is_success:
            raise DroneError(response)
        return "".join(line["out"] for line in response.json() or [])


def log_in(lab: Lab, login: str) -> httpx.Client:
    """Log in to Drone through the forge, as a person does in a browser; return the session.

    Raises:
        LabError: One of the pages was not what it should be.
    """
    account = lab.accounts[login]
    session = httpx.Client(timeout=30.0, follow_redirects=True, trust_env=False)
    form = {"user_name": login, "password": account.password}
    page = session.get(f"{lab.url('gitea')}/user/login")
    page = session.post(f"{lab.url('gitea')}/user/login", data={**_hidden(page.text), **form})
    if page.url.path == "/user/login":
        raise LabError(f"the forge does not let {login} in (status {page.status_code})")
    page = session.get(f"{lab.url('drone')}/login")
    if "/login/oauth/authorize" in str(page.url):
        grant = {**_hidden(page.text), "granted": "true"}
        page = session.post(f"{lab.url('gitea')}/login/oauth/grant", data=grant)
    who = session.get(f"{lab.url('drone')}/api/user")
    if not who.is_success or who.json()["login"] != login:
        raise LabError(f"Drone does not know {login} after the login: {who.status_code} {page.url} {page.text[:200]}")
    return session


def _hidden(page: str) -> dict[str, str]:
    fields = {}
    for tag in re.findall(r"<input[^>]*>", page):
        attributes = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
        if attributes.get("type") == "hidden" and "name" in attributes:
            fields[attributes["name"]] = unescape(attributes.get("value", ""))
    return fields


def link(lab: Lab) -> None:
    """Log both users in, activate the CI repository, and set what it must never do."""
    with Drone(lab) as drone:
        known = {user["login"] for user in drone.call("GET", "/users")}
        if BUILDS_USER not in known:
            drone.call("POST", "/users", json={"login": BUILDS_USER, "active": True, "admin": False})
        log_in(lab, ADMIN).close()
        drone.call("POST", "/user/repos")
        with contextlib.closing(log_in(lab, BUILDS_USER)) as session:
            session.post(f"{lab.url('drone')}/api/user/repos").raise_for_status()
            lab.drone_bridge_token = session.post(f"{lab.url('drone')}/api/user/token").json()["token"]
            lab.save()
        repo = drone.call("GET", f"/repos/{CI_REPO}")
        if not repo["active"]:
            drone.call("POST", f"/repos/{CI_REPO}")
        elif lab.linked:
            # The addresses may have changed: the hook in the forge is made again.
            drone.call("POST", f"/repos/{CI_REPO}/repair")
        settings = {
            "ignore_pull_requests": True,
            "ignore_forks": True,
            "auto_cancel_pull_requests": False,
            "auto_cancel_pushes": False,
            "trusted": False,
            "timeout": TIMEOUT_MINUTES,
        }
        drone.call("PATCH", f"/repos/{CI_REPO}", json=settings)
        if not lab.linked:
            lab.drone_admin_token = drone.call("POST", "/user/token", params={"rotate": "true"})["token"]
            lab.linked = True
            lab.save()
