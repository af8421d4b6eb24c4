"""What the bridge and the pipeline rely on, as the real servers do it."""

import contextlib
import hashlib
import hmac
import http.server
import json
import os
import queue
import signal
import threading
import time
from pathlib import Path

import pytest

from lab.drone import BUILDS_USER, Drone, DroneError
from lab.gitea import push
from lab.processes import LabError
from lab.samples import git
from lab.state import CI_REPO, ORG
from tests.system.guarantees import FINAL
from tests.system.waits import finished

PLAIN = """
kind: pipeline
type: exec
name: plain
trigger: {event: [custom]}
clone: {disable: true}
steps:
  - name: step
    commands:
      - %s
"""


@pytest.fixture
def branch(lab, tmp_path):
    """Make a branch of the CI repository that holds this `.drone.yml`; return its name."""

    def make(text, name):
        git(tmp_path, "init", "--quiet", "--initial-branch=main", name)
        folder = tmp_path / name
        (folder / ".drone.yml").write_text(text)
        git(folder, "add", ".drone.yml")
        git(folder, "-c", "user.name=lab", "-c", "user.email=lab@lab.example", "commit", "--quiet", "-m", name)
        push(lab, folder, CI_REPO, f"+main:refs/heads/{name}")
        return name

    return make


def create(drone, branch_name, **params):
    return drone.call("POST", f"/repos/{CI_REPO}/builds", params={"branch": branch_name, **params})


class Receiver:
    """An HTTP server that keeps what it is sent, and answers with `status`."""

    def __init__(self, status=200):
        self.got = queue.Queue()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.got.put((dict(self.headers), body))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hooked(forge):
    """Have the comments on pull requests of `hello` delivered to a receiver as well."""
    path = f"/repos/{ORG}/hello/hooks"
    with contextlib.ExitStack() as stack:

        def make(receiver, secret):
            config = {"url": receiver.url, "content_type": "json", "secret": secret}
            body = {"type": "gitea", "active": True, "events": ["pull_request_comment"], "config": config}
            hook = forge.call("POST", path, json=body)
            stack.callback(forge.call, "DELETE", f"{path}/{hook['id']}")

        yield make


# The forge


@pytest.mark.parametrize(
    ("asker", "token", "who", "status"),
    [
        ("testme-bot", "poll", "maya", 204),
        ("testme-bot", "poll", "sam", 404),
        ("testme-bot", "poll", "nobody-of-this-name", 404),
        ("sam", "lab", "maya", 303),
    ],
)
def test_membership_is_answered_with_204_404_or_a_redirect(forge, asker, token, who, status):
    response = forge.ask("GET", f"/orgs/{ORG}/members/{who}", by=asker, token=token)

    assert response.status_code == status


def test_since_means_updated_and_takes_whole_seconds(lab, forge):
    number = lab.pulls["hello"]
    path = f"/repos/{ORG}/hello/issues/comments"
    old = forge.comment(f"{ORG}/hello", number, "an old comment", by="maya")
    forge.let_pass(0.0)
    new = forge.comment(f"{ORG}/hello", number, "a newer one", by="maya")

    def listed():
        return [one["id"] for one in forge.call("GET", path, params={"since": new["created_at"], "limit": 50})]

    before = listed()
    forge.call("PATCH", f"{path}/{old['id']}", by="maya", json={"body": "an old comment, edited"})

    assert (new["id"] in before, old["id"] in before) == (True, False)
    assert old["id"] in listed()


def test_webhook_is_signed_over_its_raw_body(lab, forge, hooked):
    with Receiver() as receiver:
        hooked(receiver, "a secret of this test alone")
        forge.comment(f"{ORG}/hello", lab.pulls["hello"], "signed?", by="maya")
        headers, body = receiver.got.get(timeout=20)

    wanted = hmac.new(b"a secret of this test alone", body, hashlib.sha256).hexdigest()
    assert headers["X-Gitea-Signature"] == wanted
    assert (headers["X-Gitea-Event"], headers["X-Gitea-Event-Type"]) == ("issue_comment", "pull_request_comment")


def test_webhook_that_fails_is_not_sent_again(lab, forge, hooked):
    with Receiver(status=500) as receiver:
        hooked(receiver, "a secret of this test alone")
        for text in ("the first", "the second"):
            forge.comment(f"{ORG}/hello", lab.pulls["hello"], text, by="maya")
        bodies = [json.loads(receiver.got.get(timeout=20)[1]) for _ in range(2)]

        assert receiver.got.empty()
    assert sorted(body["comment"]["body"] for body in bodies) == ["the first", "the second"]


@pytest.mark.parametrize("who", ["maya", "testme-bot", BUILDS_USER, "sam"])
def test_only_the_administrator_pushes_to_the_ci_repository(lab, tmp_path, who):
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "evil")
    folder = tmp_path / "evil"
    identity = ("-c", "user.name=x", "-c", "user.email=x@lab.example")
    git(folder, *identity, "commit", "--quiet", "--allow-empty", "-m", "mine now")

    for name in ("main", "another"):
        with pytest.raises(LabError, match="git push"):
            push(lab, folder, CI_REPO, f"+main:refs/heads/{name}", by=who)


# Drone and its runner


def test_settings_of_the_live_servers_are_the_safe_ones(lab, drone):
    repo = drone.call("GET", f"/repos/{CI_REPO}")
    users = {user["login"]: user["admin"] for user in drone.call("GET", "/users")}

    assert (repo["ignore_pull_requests"], repo["ignore_forks"], repo["trusted"]) == (True, True, False)
    assert users == {"keeper": True, BUILDS_USER: False}
    with Drone(lab, token=lab.drone_bridge_token) as bridge, pytest.raises(DroneError):
        bridge.call("GET", "/users")


def test_every_server_listens_on_the_loopback_address_only(lab):
    ports = {f"{port:04X}" for port in lab.ports.values()}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            if state == "0A" and address.rpartition(":")[2] in ports:
                listening.add(address)

    assert len(listening) == len(lab.ports)
    assert {address.partition(":")[0] for address in listening} == {"0100007F"}


def test_parameters_are_the_environment_of_the_steps(drone, branch):
    name = branch(PLAIN % "'echo \"<$RECIPE>\"'", "echo")

    build = create(drone, name, RECIPE="x; touch /tmp/pwned")

    assert finished(drone, build["number"])["status"] == "success"
    assert "<x; touch /tmp/pwned>" in drone.log(build["number"], step=1)


def test_build_that_no_pipeline_matches_is_null(drone, branch):
    name = branch((PLAIN % "true").replace("custom", "push"), "nothing-custom")

    assert create(drone, name, RECIPE="hello") is None


def test_build_of_broken_yaml_is_an_error_without_parameters(drone, branch):
    name = branch("kind: pipeline\nsteps: [", "broken")

    build = create(drone, name, RECIPE="hello")

    assert (build["status"], build.get("params")) == ("error", None)


def test_restart_is_a_new_number_with_the_old_parameters(drone, branch):
    name = branch(PLAIN % "true", "again")
    build = create(drone, name, RECIPE="hello", WHICH="first")
    finished(drone, build["number"])

    again = drone.call("POST", f"/repos/{CI_REPO}/builds/{build['number']}")

    assert again["number"] > build["number"]
    assert finished(drone, again["number"])["params"] == {"RECIPE": "hello", "WHICH": "first"}


def test_cancel_kills_one_process_and_no_child_of_it(drone, branch, tmp_path):
    witness = tmp_path / "pids"
    os.mkfifo(witness)
    # `wait` keeps the shell; the child's output goes elsewhere, or the step would last as long as it does.
    # Two dollar signs would reach the shell as one, so it is a child that tells the shell's number.
    command = '\'sleep 600 >/dev/null 2>&1 & sh -c "echo \\$PPID $!" >"$WITNESS"; wait\''
    build = create(drone, branch(PLAIN % command, "sleeper"), WITNESS=str(witness))
    shell, child = map(int, witness.read_text().split())
    handle = os.pidfd_open(child)
    gone = os.pidfd_open(shell)
    try:
        drone.call("DELETE", f"/repos/{CI_REPO}/builds/{build['number']}")

        assert finished(drone, build["number"])["status"] == "killed"
        assert _ends(gone, 60.0)
        assert not _ends(handle, 1.0)
    finally:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        os.close(gone)


def _ends(handle, timeout):
    import select

    return bool(select.select([handle], [], [], timeout)[0])


def test_pull_request_of_a_stranger_does_not_run(lab, forge, drone, branch, tmp_path):
    owned = tmp_path / "owned"
    forge.call("POST", f"/repos/{CI_REPO}/forks", by="sam", json={})
    evil = (PLAIN % f"touch {owned}").replace("custom", "pull_request")
    base = branch(PLAIN % "true", "target")
    try:
        # The repository looks away by itself; without that, the runner still refuses.
        drone.call("PATCH", f"/repos/{CI_REPO}", json={"ignore_pull_requests": False, "ignore_forks": False})
        request = {"base": base, "head": "sam:evil", "title": "harmless"}
        push(lab, _on_top_of(lab, tmp_path, base, evil), "sam/ci", "+evil:refs/heads/evil", by="sam")
        forge.call("POST", f"/repos/{CI_REPO}/pulls", by="sam", json=request)
        build = _build_of_event(drone, "pull_request")

        assert build["status"] == "error"
        assert build["stages"][0]["error"] == "insufficient permission to run the pipeline"
        assert not owned.exists()
    finally:
        drone.call("PATCH", f"/repos/{CI_REPO}", json={"ignore_pull_requests": True, "ignore_forks": True})
        forge.call("DELETE", "/repos/sam/ci")


def _on_top_of(lab, tmp_path, base, text):
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", base, f"{lab.url('gitea')}/{CI_REPO}.git", str(folder))
    git(folder, "switch", "--quiet", "-c", "evil")
    (folder / ".drone.yml").write_text(text)
    git(folder, "-c", "user.name=sam", "-c", "user.email=sam@lab.example", "commit", "--quiet", "-am", "evil")
    return folder


def _build_of_event(drone, event, *, timeout=60.0):
    deadline = time.monotonic() + timeout
    while True:
        found = [build for build in drone.builds() if build["event"] == event and build["status"] in FINAL]
        if found:
            return drone.build(found[0]["number"])
        assert time.monotonic() < deadline, f"no final build of event {event} after {timeout} s"
        time.sleep(0.2)
