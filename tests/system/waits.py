"""Waiting for the real servers: for an answer's words, a run's stage, a build's end, a commit's status."""

import json
import time

from lab import rounds
from lab.state import ORG
from tests.system.guarantees import FINAL

HELLO = f"{ORG}/hello"
#: Enough to see a whole way through, and soon over.
QUICK = "!testme stages=install"
TIMEOUT = 240.0


def answers(forge, lab, comment, *, recipe="hello", number=None):
    """Return every text of the answer to a comment, the final one last."""
    number = number or lab.pulls[recipe]
    return list(rounds.follow(forge, f"{ORG}/{recipe}", number, comment, timeout=TIMEOUT))


def await_answer(forge, lab, comment, beginning, *, timeout=TIMEOUT):
    """Wait until the answer to a comment begins like this."""
    for answer in rounds.follow(forge, HELLO, lab.pulls["hello"], comment, timeout=timeout):
        if answer.text.startswith(beginning):
            return answer
    raise AssertionError(f"the answer never began with {beginning!r}, it ended as {answer.title}")


def build_of(drone, comment):
    """Return the build that was started for a comment, or None."""
    found = [build for build in drone.builds() if (build.get("params") or {}).get("COMMENT") == str(comment)]
    return drone.build(found[-1]["number"]) if found else None


def await_run(lab, comment, stage):
    """Wait until the run of a comment is in this stage; return its id."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        for file in (lab.state / "runs").glob("*/results.json"):
            result = json.loads(file.read_text(encoding="utf-8"))
            if result["comment"] == str(comment):
                for one in result["stages"]:
                    if one["stage"] == stage and one["started_at"] and one["outcome"] is None:
                        return result["run_id"]
        time.sleep(0.05)
    raise AssertionError(f"no run of comment {comment} came to the stage {stage}")


def finished(drone, number):
    """Return a build once it is final."""
    deadline = time.monotonic() + 60.0
    while (build := drone.build(number))["status"] not in FINAL:
        assert time.monotonic() < deadline, f"build {number} is {build['status']}"
        time.sleep(0.1)
    return build


def await_status(forge, full_name, sha, state):
    """Wait until the commit has this one status; it follows the comment's last word."""
    deadline = time.monotonic() + 30.0
    while True:
        found = forge.call("GET", f"/repos/{full_name}/commits/{sha}/status")["statuses"] or []
        if [(one["context"], one["status"]) for one in found] == [("coop-cloud/testme", state)]:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
