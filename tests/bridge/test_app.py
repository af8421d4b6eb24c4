from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.app import create_app
from bridge.logs import JsonFormatter
from bridge.triggers import StoreError, Triggers
from tests.bridge.world import HOOK_SECRET, REPO, make_settings
from tests.fakes import FakeClock, FakeDrone, FakeGitea, transport

pytestmark = pytest.mark.anyio


class Served:
    """The application between doubles, its loops running."""

    def __init__(self, client: httpx.AsyncClient, gitea: FakeGitea, drone: FakeDrone) -> None:
        self.client, self.gitea, self.drone = client, gitea, drone

    async def hook(self, body: bytes, **headers: str) -> httpx.Response:
        signature = hmac.new(HOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        usual = {
            "content-type": "application/json",
            "x-gitea-event": "issue_comment",
            "x-gitea-event-type": "pull_request_comment",
            "x-gitea-signature": signature,
        }
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/hook", content=body, headers={**usual, **named})


@asynccontextmanager
async def serving(folder: Path, *, down: bool = False, **changes: Any) -> AsyncIterator[Served]:
    clock = FakeClock()
    gitea, drone = FakeGitea(clock), FakeDrone(clock)
    gitea.add_pull(REPO)
    gitea.down = drone.down = down
    settings = make_settings(folder, results_dir=Path("none"), **changes)
    app = create_app(settings, transport=transport(forge=gitea, drone=drone), clock=clock)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bridge.test") as client,
    ):
        yield Served(client, gitea, drone)


async def test_a_signed_webhook_is_taken_once_and_its_replay_harmlessly(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        body = json.dumps(served.gitea.payload(REPO, served.gitea.say(REPO, 1, "!testme"))).encode()

        first, second = await served.hook(body), await served.hook(body)

        assert (first.status_code, first.json()) == (202, {"result": "new"})
        assert (second.status_code, second.json()) == (202, {"result": "nothing_new"})
        metrics = (await served.client.get("/metrics")).text
        assert 'coopcloud_bridge_webhooks_total{answer="new"} 1.0' in metrics
        assert 'coopcloud_bridge_comments_seen_total{source="webhook"} 1.0' in metrics


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_gitea_signature": "0" * 64}, 401),
        ({"x_gitea_signature": ""}, 401),
        ({"x_forgejo_signature": "0" * 64}, 401),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"x_gitea_event": "push"}, 202),
    ],
)
async def test_a_webhook_that_is_not_in_order_starts_nothing(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with serving(tmp_path) as served:
        body = json.dumps(served.gitea.payload(REPO, served.gitea.say(REPO, 1, "!testme"))).encode()

        answer = await served.hook(body, **headers)

        assert answer.status_code == status
        assert answer.json()["result"] != "new"


async def test_a_webhook_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    async with serving(tmp_path, webhook_limit=2048) as served:
        assert (await served.hook(b"{" + b" " * 4096 + b"}")).status_code == 413


async def test_without_a_secret_there_is_no_route(tmp_path: Path) -> None:
    async with serving(tmp_path, webhook_secrets=()) as served:
        assert (await served.hook(b"{}")).status_code == 404


async def test_it_starts_with_everything_away_and_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, down=True) as served:
        health = await served.client.get("/healthz")

        assert health.status_code == 200
        assert health.json()["status"] == "degraded"


async def test_there_are_no_other_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for path in ("/", "/docs", "/openapi.json", "/redoc"):
            assert (await served.client.get(path)).status_code == 404


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    import sqlite3

    Triggers(tmp_path / "bridge.sqlite3").close()
    db = sqlite3.connect(tmp_path / "bridge.sqlite3")
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(StoreError, match="schema 99"):
        Triggers(tmp_path / "bridge.sqlite3")


def test_a_database_is_durable(tmp_path: Path) -> None:
    triggers = Triggers(tmp_path / "bridge.sqlite3")

    assert triggers._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert triggers._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    triggers.close()


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bridge.sqlite3").write_text("something else entirely" * 100)

    with pytest.raises(StoreError, match="cannot be used"):
        Triggers(tmp_path / "bridge.sqlite3")


def test_logs_are_json_lines_without_secrets() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(["s3cr3t-s3cr3t-s3cr3t"]))
    log = logging.Logger("bridge.test")
    log.addHandler(handler)

    try:
        raise RuntimeError("with s3cr3t-s3cr3t-s3cr3t\nin it")
    except RuntimeError:
        log.exception("token %s", "s3cr3t-s3cr3t-s3cr3t", extra={"repo": "a/b", "reason": "s3cr3t-s3cr3t-s3cr3t"})

    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["message"], entry["reason"], entry["repo"]) == ("token [secret]", "[secret]", "a/b")
    assert "s3cr3t" not in line
