"""The real process, on real sockets, killed with SIGKILL at random instants between doubles that fail at random.

A sample runs always; `COOPCLOUD_SOAK=1` runs all of it: 500 comments.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bridge.clock import SystemClock
from tests.bridge.world import HOOK_SECRET
from tests.fakes import DRONE_TOKEN, FORGE_TOKEN, FakeComment, FakeDrone, FakeGitea, serve

ROOT = Path(__file__).parents[2]


class Process:
    """`python -m bridge` on a free port, with the settings of a bridge in a hurry."""

    def __init__(self, folder: Path, forge: str, drone: str, repos: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "FORGE_URL": forge,
            "FORGE_TOKEN": FORGE_TOKEN,
            "DRONE_URL": drone,
            "DRONE_TOKEN": DRONE_TOKEN,
            "DRONE_REPO": "coop-cloud/recipe-ci",
            "WEBHOOK_SECRETS": HOOK_SECRET,
            "RESULTS_DIR": "none",
            "PORT": str(self.port),
            "POLL_INTERVAL": "0.5",
            "PROGRESS_INTERVAL": "0.2",
            "EDIT_INTERVAL": "0",
            "IN_DOUBT": "0.5",
            "SETTLE": "0.2",
            "LIMIT_USER_HOUR": "100000",
            "LIMIT_REPO_HOUR": "100000",
            "LIMIT_ACTIVE": "100000",
        }
        self.environ = {
            "PATH": os.environ["PATH"],
            "POLL_REPOS": " ".join(repos),
            "COOPCLOUD_CI_STATE": str(folder),
            **{f"CCCI_BRIDGE_{name}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "bridge.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridge"], cwd=ROOT, env=self.environ, stdout=log, stderr=log
            )

    def stop(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=20)

    async def ready(self, client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/healthz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    async def hook(self, client: httpx.AsyncClient, gitea: FakeGitea, repo: str, comment: FakeComment) -> int:
        """Deliver the webhook of a comment; 0 where nobody listens, as nobody delivers it again."""
        body = json.dumps(gitea.payload(repo, comment)).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Gitea-Event": "issue_comment",
            "X-Gitea-Event-Type": "pull_request_comment",
            "X-Gitea-Signature": hmac.new(HOOK_SECRET.encode(), body, hashlib.sha256).hexdigest(),
        }
        try:
            return (await client.post(f"{self.url}/hook", content=body, headers=headers, timeout=5)).status_code
        except httpx.HTTPError:
            return 0


@pytest.fixture
def servers() -> Iterator[tuple[FakeGitea, FakeDrone, str, str]]:
    clock = SystemClock()
    gitea, drone = FakeGitea(clock), FakeDrone(clock)
    with serve(gitea) as forge, serve(drone) as ci:
        yield gitea, drone, forge, ci


def _add_pulls(gitea: FakeGitea, count: int, *, a_repo: int = 20) -> list[tuple[str, int]]:
    pulls = [(f"coop-cloud/recipe-{index // a_repo}", index % a_repo + 1) for index in range(count)]
    for index, (repo, number) in enumerate(pulls):
        gitea.add_pull(repo, number, sha=f"{index + 1:040x}").updated -= 3600
    return pulls


def test_a_webhook_is_a_build_within_a_second(tmp_path: Path, servers: tuple[FakeGitea, FakeDrone, str, str]) -> None:
    gitea, drone, forge, ci = servers
    pulls = _add_pulls(gitea, 20)
    process = Process(tmp_path, forge, ci, sorted({repo for repo, _ in pulls}))
    process.environ["CCCI_BRIDGE_POLL_INTERVAL"] = "30"
    process.start()

    async def measure() -> list[float]:
        times = []
        async with httpx.AsyncClient() as client:
            await process.ready(client)
            for count, (repo, number) in enumerate(pulls, start=1):
                comment = gitea.say(repo, number, "!testme")
                began = time.monotonic()
                assert await process.hook(client, gitea, repo, comment) == 202
                async with asyncio.timeout(5):
                    while len(drone.builds) < count:
                        await asyncio.sleep(0.002)
                times.append(time.monotonic() - began)
        return times

    try:
        times = asyncio.run(measure())
    finally:
        code = process.stop(signal.SIGTERM)

    print(f"webhook to build: p50 {statistics.median(times):.3f} s, p95 {sorted(times)[18]:.3f} s")
    assert sorted(times)[18] < 1.0
    assert code in (0, -signal.SIGTERM)
    log = (tmp_path / "bridge.log").read_text()
    assert '"message": "stopped"' in log
    assert all(json.loads(line)["level"] in ("info", "warning") for line in log.splitlines())
    for secret in (FORGE_TOKEN, DRONE_TOKEN, HOOK_SECRET):
        assert secret not in log


@pytest.mark.parametrize(
    ("count", "seconds"),
    [
        pytest.param(16, 90, id="sample"),
        pytest.param(
            500,
            900,
            id="whole",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(os.environ.get("COOPCLOUD_SOAK") != "1", reason="COOPCLOUD_SOAK=1 asks for it"),
            ],
        ),
    ],
)
def test_every_comment_is_one_build_and_one_comment_whatever_dies(
    tmp_path: Path, servers: tuple[FakeGitea, FakeDrone, str, str], count: int, seconds: int
) -> None:
    gitea, drone, forge, ci = servers
    drone.instantly = "success"
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    print(f"seed {seed}")
    pulls = _add_pulls(gitea, count)
    process = Process(tmp_path, forge, ci, sorted({repo for repo, _ in pulls}))
    comments: list[tuple[str, FakeComment]] = []
    kills = 0

    def fail(_method: str, _path: str) -> str | None:
        roll = dice.random()
        return "500" if roll < 0.06 else "lost" if roll < 0.09 else "cut" if roll < 0.10 else None

    async def say_and_deliver(client: httpx.AsyncClient) -> None:
        deliveries = []
        for repo, number in dice.sample(pulls, len(pulls)):
            comment = gitea.say(repo, number, "!testme")
            comments.append((repo, comment))
            deliveries += [(repo, comment)] * dice.randint(0, 3)
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() * 0.2)
        for repo, comment in dice.sample(deliveries, len(deliveries)):
            await process.hook(client, gitea, repo, comment)
            await asyncio.sleep(0.002)

    def done() -> bool:
        return len(comments) == count and all(
            any("passed" in answer.body for answer in gitea.answers(repo, comment.number)) for repo, comment in comments
        )

    async def play() -> None:
        nonlocal kills
        async with httpx.AsyncClient() as client:
            await process.ready(client)
            # The cursors must be on disk before the comments are made: those from before do not count.
            async with asyncio.timeout(20):
                while not gitea.asked["GET /api/vN/repos/issues/search"]:
                    await asyncio.sleep(0.02)
            gitea.fault = drone.fault = fail
            talk = asyncio.create_task(say_and_deliver(client))
            async with asyncio.timeout(seconds):
                while not done():
                    await asyncio.sleep(dice.uniform(0.9, 3.0))
                    if dice.random() < 0.8 and kills < 60:
                        kills += 1
                        await asyncio.to_thread(process.stop, signal.SIGKILL)
                        process.start()
                await talk

    process.start()
    began = time.monotonic()
    try:
        asyncio.run(play())
    finally:
        process.stop(signal.SIGKILL)

    print(f"{count} comments, {kills} kills, {time.monotonic() - began:.0f} s, {len(drone.builds)} builds")
    assert kills > 0
    assert Counter(int(build["params"]["COMMENT"]) for build in drone.builds.values()) == Counter(
        comment.id for _, comment in comments
    )
    for repo, comment in comments:
        answers = gitea.answers(repo, comment.number)
        assert [f"coopcloud-ci:{comment.id} " in answer.body for answer in answers] == [True]
    assert gitea.unexpected == []
    assert drone.unexpected == []
