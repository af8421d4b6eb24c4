"""A bridge between a forge and a Drone that are doubles, in which time passes only when it is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from bridge.app import Bridge, build_bridge
from bridge.comments import Comment
from bridge.settings import Settings
from bridge.triggers import State, Trigger, Triggers
from tests.fakes import DRONE_TOKEN, FORGE_TOKEN, FakeClock, FakeComment, FakeDrone, FakeGitea, transport

REPO = "coop-cloud/guestbook"
HOOK_SECRET = "hook-0123456789abcdef"


def make_settings(folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "forge_url": "http://forge.test",
        "forge_token": SecretStr(FORGE_TOKEN),
        "drone_url": "http://drone.test",
        "drone_token": SecretStr(DRONE_TOKEN),
        "drone_repo": "coop-cloud/recipe-ci",
        "poll_repos": (REPO,),
        "webhook_secrets": (SecretStr(HOOK_SECRET),),
        "state_dir": folder,
        "dashboard_url": "http://ci.test",
    }
    return Settings(**{**values, **changes})


class KilledError(BaseException):
    """What SIGKILL is to the code that runs: no handler sees it."""


class Mortal:
    """Counts the moments at which a process can die, and dies at the one it was told to."""

    def __init__(self) -> None:
        self.moments = 0
        self.dies_at: int | None = None
        self.dead = False

    def moment(self) -> None:
        self.moments += 1
        if self.dead or self.moments == self.dies_at:
            self.dead = True
            raise KilledError


class MortalTriggers(Triggers):
    """The table, in a process that can die before and after each change."""

    def __init__(self, path: Path, mortal: Mortal) -> None:
        self._mortal = mortal
        super().__init__(path)

    def add(self, comment: Comment, *, words: str, seen_at: float) -> bool:
        self._mortal.moment()
        new = super().add(comment, words=words, seen_at=seen_at)
        self._mortal.moment()
        return new

    def change(self, trigger: Trigger, **changes: Any) -> Trigger:
        self._mortal.moment()
        changed = super().change(trigger, **changes)
        self._mortal.moment()
        return changed

    def move(self, cursors: Any) -> None:
        self._mortal.moment()
        super().move(cursors)
        self._mortal.moment()


class World:
    """Forge, Drone, and one bridge after another on one database."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.clock = FakeClock()
        self.gitea = FakeGitea(self.clock)
        self.drone = FakeDrone(self.clock)
        self.settings = make_settings(folder, **changes)
        self.mortal = Mortal()
        self.gitea.add_repo(REPO)
        self.gitea.add_pull(REPO)
        self.bridge: Bridge = None  # type: ignore[assignment]
        self._client: httpx.AsyncClient | None = None
        self._bystanders: set[asyncio.Task[Any]] = set()

    def boot(self) -> Bridge:
        """Start a bridge, on what the last one left."""
        self._bystanders = asyncio.all_tasks()
        carried = transport(forge=self.gitea, drone=self.drone)
        mortal = self.mortal

        class MortalTransport(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                mortal.moment()
                response = await carried.handle_async_request(request)
                mortal.moment()
                return response

        self._client = httpx.AsyncClient(transport=MortalTransport())
        triggers = MortalTriggers(self.settings.database, mortal)
        self.bridge = build_bridge(self.settings, client=self._client, clock=self.clock, triggers=triggers)
        return self.bridge

    async def kill(self) -> None:
        """End the bridge as SIGKILL does: nothing is finished, nothing is written."""
        self.mortal.dead = True
        if left := asyncio.all_tasks() - self._bystanders:
            await asyncio.gather(*left, return_exceptions=True)
        await self.close()
        self.mortal = Mortal()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self.bridge.triggers.close()
            self._client = None

    async def begin(self) -> None:
        """Start a bridge and let it look around, so that what is said from now on counts."""
        self.boot()
        await self.bridge.poller.cycle()
        self.clock.advance(5)

    async def turn(self) -> None:
        """One poll, and all that the worker can do without waiting."""
        await self.bridge.poller.cycle()
        await self.bridge.poller.settle()
        await self.bridge.worker.tick()

    async def go(self, seconds: float = 30.0, *, step: float = 5.0) -> None:
        """Let time pass: a turn now and after each step."""
        await self.turn()
        passed = 0.0
        while passed < seconds:
            self.clock.advance(step)
            passed += step
            await self.turn()

    def testme(self, number: int = 1, body: str = "!testme", *, user: int = 2, repo: str = REPO) -> FakeComment:
        return self.gitea.say(repo, number, body, user=user)

    def row(self, comment: FakeComment) -> Trigger:
        row = self.bridge.triggers.by_comment(comment.id)
        assert row is not None
        return row

    def answer(self, number: int = 1, *, repo: str = REPO) -> str:
        """The only comment of the bot on a pull request."""
        (answer,) = self.gitea.answers(repo, number)
        return answer.body

    @property
    def all_final(self) -> bool:
        return all(row.state is State.FINAL for row in self.bridge.triggers.all())
