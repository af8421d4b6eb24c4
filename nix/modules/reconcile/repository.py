"""The CI repository in Drone: activated, with the settings that keep strangers' code away."""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import PredecessorError, ReconcileError, SettingError
from .records import Outcome, Record, one_at_a_time, read_record, write_record
from .settings import credential, required

__all__ = ["WISHES", "reconcile_repository"]

NAME = "repository"

#: What a run relies on. Fork pull requests never run here: a build is the shell of this host.
WISHES: dict[str, Any] = {
    "ignore_forks": True,
    "ignore_pull_requests": True,
    "auto_cancel_pushes": False,
    "auto_cancel_pull_requests": False,
    "auto_cancel_running": False,
    "protected": False,
    "trusted": False,
}


def reconcile_repository(environment: Mapping[str, str]) -> Record:
    """Activate the repository and set what differs.

    Raises:
        PredecessorError: Drone is not well.
        ReconcileError: Drone refuses.
    """
    state_dir = Path(required(environment, "RECONCILE_STATE_DIR"))
    with one_at_a_time(state_dir, lambda text: _say(text)):
        try:
            before = read_record(state_dir, "drone")
            if before is None or before.outcome is Outcome.FAILED:
                raise PredecessorError(
                    f"drone comes first and {f'has failed: {before.reason}' if before else 'has never run'}",
                    hint="`systemctl start coopcloud-ci-drone`, then this one again",
                )
            changed = _converge(environment)
        except ReconcileError as error:
            write_record(state_dir, NAME, Record(Outcome.FAILED, reason=error.reason))
            raise
        record = Record(Outcome.CONVERGED, changed=changed)
        write_record(state_dir, NAME, record)
    _say("converged" if changed else "as wished, nothing changed")
    return record


def _converge(environment: Mapping[str, str]) -> bool:
    server = required(environment, "RECONCILE_DRONE_URL").rstrip("/")
    name = required(environment, "RECONCILE_REPOSITORY")
    timeout = int(required(environment, "RECONCILE_TIMEOUT_MINUTES"))
    token_file = credential(required(environment, "RECONCILE_DRONE_TOKEN"))
    token = token_file.read_text(encoding="utf-8").strip()
    wishes = WISHES | {"timeout": timeout}

    repository = _call(server, token, "GET", f"/api/repos/{name}", missing_is_none=True)
    if repository is None:
        # Drone has not seen it yet: ask the forge.
        _call(server, token, "POST", "/api/user/repos")
        repository = _call(server, token, "GET", f"/api/repos/{name}")
    changed = False
    if not repository.get("active"):
        _say(f"activating {name}")
        repository = _call(server, token, "POST", f"/api/repos/{name}")
        changed = True
    wrong = {key: value for key, value in wishes.items() if repository.get(key, False) != value}
    if wrong:
        _say(f"setting {', '.join(f'{key}={json.dumps(value)}' for key, value in sorted(wrong.items()))}")
        repository = _call(server, token, "PATCH", f"/api/repos/{name}", wrong)
        changed = True
        refused = sorted(key for key, value in wrong.items() if repository.get(key, False) != value)
        if refused:
            raise ReconcileError(
                f"Drone did not take {', '.join(refused)} of {name}", hint="the token must be an administrator's"
            )
    return changed


def _call(
    server: str,
    token: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    missing_is_none: bool = False,
) -> Any:
    if not server.startswith(("https://", "http://")):
        raise SettingError(f"RECONCILE_DRONE_URL={server!r} is no address")
    request = urllib.request.Request(  # noqa: S310  # the scheme is checked above
        server + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404 and missing_is_none:
                return None
            hint = {
                401: "the token is wrong: docs/secrets.md, `drone_admin_token`",
                403: "the token's user may not do this: it must be an administrator of Drone and of the repository",
                404: "the token's user does not see the repository: log in to Drone once as that user, docs/install.md",
            }.get(error.code, "see the log of Drone")
            raise ReconcileError(f"Drone answers {error.code} to {method} {path}", hint=hint) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ReconcileError(f"Drone at {server} did not answer {method} {path}: {error}") from None


def _say(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)
