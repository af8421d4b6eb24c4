"""The six promises, checked on what the real servers hold after a test.

G1 At most one build for a comment.
G2 One comment for a build, final soon after the build is.
G3 Only the commit that was the head when the comment was made is tested.
G4 When a run has ended, nothing of it is left in Docker.
G5 Nothing that is not a run's is ever taken away.
G6 No secret in anything that is written down or shown.
"""

import json
import secrets
import subprocess
import time
from collections import Counter
from dataclasses import dataclass

from lab import rounds
from lab.drone import Drone
from lab.gitea import Forge
from lab.processes import find
from lab.state import CI_REPO, ORG, Lab

FINAL = {"success", "failure", "killed", "error", "declined", "skipped"}
#: Seconds from the end of a build to the last word in the comment.
LAST_WORD = 120.0
#: Seconds from the end of a build until Docker is as it was.
CLEAN = 30.0

_KINDS = {
    "service": ["docker", "service", "ls", "--format", "{{.Name}}"],
    "container": ["docker", "ps", "--all", "--format", "{{.Names}}"],
    "network": ["docker", "network", "ls", "--format", "{{.Name}}"],
    "volume": ["docker", "volume", "ls", "--format", "{{.Name}}"],
    "secret": ["docker", "secret", "ls", "--format", "{{.Name}}"],
    "config": ["docker", "config", "ls", "--format", "{{.Name}}"],
}


def docker(*argv, text=None):
    return subprocess.run(["docker", *argv], input=text, capture_output=True, text=True, check=True).stdout.strip()


def docker_names():
    """List what Docker holds: `kind name`."""
    return {
        f"{kind} {name}"
        for kind, argv in _KINDS.items()
        for name in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    }


@dataclass
class Witness:
    """A volume, a secret, a config and a network that nobody else knows."""

    name: str

    def names(self):
        return {f"{kind} {self.name}" for kind in ("volume", "secret", "config", "network")}

    def remove(self):
        for kind in ("volume", "secret", "config", "network"):
            docker(kind, "rm", self.name)


@dataclass
class Guarantees:
    """What a test asked for, and the check of what came of it."""

    lab: Lab
    witness: Witness
    #: The head at the time of each comment that a test made, by the comment's id.
    pinned: dict | None = None

    @staticmethod
    def plant_witness():
        made = Witness(f"witness-{secrets.token_hex(4)}")
        docker("volume", "create", made.name)
        docker("secret", "create", made.name, "-", text="witness")
        docker("config", "create", made.name, "-", text="witness")
        docker("network", "create", made.name)
        return made

    def ask(self, forge, recipe, *, text="!testme", by="maya", number=None):
        """Comment, remember the head of that moment, and return the comment's id."""
        number = number or self.lab.pulls[recipe]
        head = forge.call("GET", f"/repos/{ORG}/{recipe}/pulls/{number}")["head"]["sha"]
        comment = rounds.ask(forge, f"{ORG}/{recipe}", number, text=text, by=by)
        self.pinned = {**(self.pinned or {}), comment: head}
        return comment

    def check(self):
        with Forge(self.lab) as forge, Drone(self.lab) as drone:
            builds = self._builds_at_rest(drone)
            self._one_build_each(builds)
            comments = self._last_words(forge, builds)
            self._pinned_only(builds)
            self._nothing_left()
            assert self.witness.names() <= docker_names(), "something that is no run's was taken away"
            self._no_secrets(drone, builds, comments)

    def _builds_at_rest(self, drone):
        deadline = time.monotonic() + LAST_WORD
        while any(build["status"] not in FINAL for build in drone.builds()):
            if time.monotonic() > deadline:
                left = [build["number"] for build in drone.builds() if build["status"] not in FINAL]
                for number in left:
                    # The next test is not to wait for it as well.
                    drone.client.delete(f"/repos/{CI_REPO}/builds/{number}")
                raise AssertionError(f"the builds {left} do not end")
            time.sleep(0.5)
        return [build for build in drone.builds() if build["event"] == "custom"]

    def _one_build_each(self, builds):
        # A restart in Drone is a build that the bridge did not ask for.
        asked = [build["params"]["COMMENT"] for build in builds if _comment(build) and not build.get("parent")]
        doubles = [comment for comment, times in Counter(asked).items() if times > 1]
        assert not doubles, f"more than one build for the comments {doubles}"

    def _last_words(self, forge, builds):
        """Return all comments, once every build of a comment has its last word."""
        deadline = time.monotonic() + LAST_WORD
        while True:
            comments = {}
            for recipe in self.lab.pulls:
                for comment in forge.call("GET", f"/repos/{ORG}/{recipe}/issues/comments", params={"limit": 50}):
                    comments[comment["id"]] = comment
            ours = [one for one in comments.values() if one["user"]["login"] == rounds.BOT]
            open_ones = []
            for build in builds:
                comment = _comment(build)
                if comment not in comments:
                    continue
                answers = [one for one in ours if f"<!-- coopcloud-ci:{comment} -->" in one["body"]]
                assert len(answers) <= 1, f"{len(answers)} comments about comment {comment}"
                if not answers or not rounds.Answer(answers[0]["body"], 0.0).final:
                    open_ones.append(comment)
            if not open_ones:
                return list(comments.values())
            assert time.monotonic() < deadline, f"no last word about the comments {open_ones}"
            time.sleep(0.5)

    def _pinned_only(self, builds):
        for build in builds:
            wanted = (self.pinned or {}).get(_comment(build))
            if wanted:
                assert build["params"]["REF"] == wanted, f"build {build['number']} is of another commit"
        for file in (self.lab.state / "runs").glob("*/results.json"):
            result = json.loads(file.read_text(encoding="utf-8"))
            wanted = (self.pinned or {}).get(int(result["comment"] or 0))
            if wanted and result["ref"]:
                assert result["ref"] == wanted, f"run {result['run_id']} tested another commit"

    def _nothing_left(self):
        runs = self.lab.state / "runs"
        ids = [folder.name for folder in runs.iterdir()] if runs.is_dir() else []
        deadline = time.monotonic() + CLEAN
        while True:
            left = sorted(name for name in docker_names() if any(run in name for run in ids))
            if not left:
                return
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.5)

    def _no_secrets(self, drone, builds, comments):
        lab = self.lab
        values = {
            "the webhook's secret": lab.webhook_secret,
            "the secret between Drone and runner": lab.rpc_secret,
            "Drone's administrator": lab.drone_admin_token,
            "the bridge's token in Drone": lab.drone_bridge_token,
            "the forge's OAuth secret": lab.oauth_secret,
            **{
                f"token {purpose} of {account.login}": token
                for account in lab.accounts.values()
                for purpose, token in account.tokens.items()
            },
        }
        places = {f"comment {one['id']}": one["body"] for one in comments}
        for build in builds[:20]:
            places[f"log of build {build['number']}"] = drone.log(build["number"])
        for folder in (lab.state / "runs", lab.folder / "logs"):
            for file in folder.rglob("*"):
                if file.is_file() and file.suffix in {".json", ".html", ".xml", ".txt", ".log"}:
                    places[str(file.relative_to(lab.folder))] = file.read_text(encoding="utf-8", errors="replace")
        places["the list of processes"] = "\n".join(process.command for process in find(lab))
        found = [
            f"{what} in {where}" for what, value in values.items() for where, text in places.items() if value in text
        ]
        assert not found, f"secrets in plain sight: {found}"


def _comment(build):
    text = (build.get("params") or {}).get("COMMENT", "")
    return int(text) if text.isdigit() else 0
